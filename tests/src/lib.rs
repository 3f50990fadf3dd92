//! A test vocabulary for headroom: memory cgroups of one's own, scenarios, readable differences.
