//! KubeVirt and Harvester overhead arithmetic.
