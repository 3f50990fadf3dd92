//! Figures as OpenMetrics text.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::figures::{ByRole, Figures, PodFigures};

/// What the text is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The whole exposition.
///
/// # Errors
/// Never for figures, whatever is in them: writing to a string does not fail.
pub fn text(figures: &Arc<Figures>) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition(Arc::clone(figures))));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

#[derive(Debug)]
struct Exposition(Arc<Figures>);

impl Collector for Exposition {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut families = Families(encoder);
        families.pods(&self.0.pods)?;
        families.overhead(&self.0.pods)?;
        families.alerts(&self.0)?;
        families.stalls(&self.0.pods)?;
        families.tracer(&self.0)?;
        families.process(&self.0)
    }
}

struct Families<'a>(DescriptorEncoder<'a>);

/// A figure of a pod that is a gauge.
type Gauge = (&'static str, &'static str, fn(&PodFigures) -> Option<u64>);

/// Sizes of a pod.
const SIZES: [Gauge; 6] = [
    (
        "headroom_usage",
        "What the kernel counts as used in the memory cgroup that limits the pod.",
        |pod| pod.usage,
    ),
    ("headroom_limit", "Limit of that memory cgroup.", |pod| pod.limit),
    (
        "headroom_headroom",
        "Limit less usage. Page cache that could be reclaimed is used.",
        |pod| pod.headroom,
    ),
    (
        "headroom_reclaimable_file",
        "Page cache that the kernel could take back.",
        |pod| pod.reclaimable,
    ),
    ("headroom_guest_ram", "Size of guest RAM.", |pod| {
        Some(pod.guest_ram).filter(|bytes| *bytes > 0)
    }),
    ("headroom_guest_resident", "Guest RAM that is resident.", |pod| {
        pod.guest_resident
    }),
];

impl Families<'_> {
    fn pods(&mut self, pods: &[PodFigures]) -> fmt::Result {
        for (name, help, of) in SIZES {
            self.gauges(name, help, Some(&Unit::Bytes), pods, of)?;
        }
        let help = "Growth of usage since the pod's tracing began that no account explains.";
        self.gauges("headroom_unexplained", help, Some(&Unit::Bytes), pods, |pod| {
            pod.unexplained
        })?;
        let help = "Time until usage is expected to meet the limit. Absent where that is not to be expected.";
        self.gauges("headroom_eta", help, Some(&Unit::Seconds), pods, |pod| pod.eta_s)
    }

    fn gauges<N: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        pods: &[PodFigures],
        of: impl Fn(&PodFigures) -> Option<N>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for pod in pods {
            if let Some(value) = of(pod) {
                family.encode_family(&labels(pod))?.encode_gauge(&value)?;
            }
        }
        Ok(())
    }

    fn overhead(&mut self, pods: &[PodFigures]) -> fmt::Result {
        let help = "Memory that is not guest RAM, by who was charged for it and did not give it back. What was there \
            before tracing began is of role before; memory that another role gives back makes a role's negative.";
        self.by_role("headroom_overhead", help, pods, |pod| &pod.overhead)?;
        let help = "Of the memory charged since tracing began, what is still held, by who was charged for it, whoever gave \
            back the rest. Absent where pages are not followed.";
        self.by_role("headroom_live", help, pods, |pod| &pod.live)
    }

    fn by_role(
        &mut self,
        name: &str,
        help: &str,
        pods: &[PodFigures],
        of: impl Fn(&PodFigures) -> &ByRole,
    ) -> fmt::Result {
        let unit = Some(&Unit::Bytes);
        let mut family = self.0.encode_descriptor(name, help, unit, MetricType::Gauge)?;
        for pod in pods {
            for ((role, kind), bytes) in of(pod) {
                let [namespace, vm] = labels(pod);
                let labels = [namespace, vm, ("role", role.as_str()), ("kind", kind)];
                family.encode_family(&labels)?.encode_gauge(bytes)?;
            }
        }
        Ok(())
    }

    fn alerts(&mut self, figures: &Figures) -> fmt::Result {
        let help = "Whether an alert of this pod stands: 1 while it does, 0 once it is over.";
        let mut family = self
            .0
            .encode_descriptor("headroom_alert", help, None, MetricType::Gauge)?;
        for pod in &figures.pods {
            for (alert, raised) in &pod.alerts {
                let [namespace, vm] = labels(pod);
                let labels = [namespace, vm, ("alert", alert.as_str())];
                family.encode_family(&labels)?.encode_gauge(&u32::from(*raised))?;
            }
        }
        let help = "Alerts raised.";
        let mut family = self
            .0
            .encode_descriptor("headroom_alerts", help, None, MetricType::Counter)?;
        for (alert, count) in &figures.alerts {
            let labels = [("alert", alert.as_str())];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, u64, f64>(count, None)?;
        }
        Ok(())
    }

    fn stalls(&mut self, pods: &[PodFigures]) -> fmt::Result {
        let help = "Time that threads spent reclaiming before they were charged.";
        let unit = Some(&Unit::Seconds);
        let mut family = self
            .0
            .encode_descriptor("headroom_reclaim_stall", help, unit, MetricType::Histogram)?;
        for pod in pods {
            let stalls = &pod.stalls;
            family.encode_family(&labels(pod))?.encode_histogram::<NoLabelSet>(
                stalls.seconds(),
                stalls.count(),
                &stalls.buckets(),
                None,
            )?;
        }
        Ok(())
    }

    /// How far the figures may be trusted.
    fn tracer(&mut self, figures: &Figures) -> fmt::Result {
        let loss = &figures.loss;
        let bytes = Some(&Unit::Bytes);
        for (name, help, unit, count) in [
            ("headroom_lost", "Bytes that found no account.", bytes, loss.lost_bytes),
            (
                "headroom_ring_full",
                "Times the ring buffer was full: bytes were late.",
                None,
                loss.ring_full,
            ),
            (
                "headroom_events_dropped",
                "Reclaim, kill, exit or rename events dropped.",
                None,
                loss.events_dropped,
            ),
            (
                "headroom_missed_runs",
                "Runs of probes that the kernel left out.",
                None,
                loss.missed_runs,
            ),
            ("headroom_records", "Charge records taken.", None, figures.records),
            ("headroom_oom_kills", "Kills in watched pods.", None, figures.kills),
        ] {
            self.counter(name, help, unit, &count)?;
        }
        let help = "Pods that are added up under the label other, since there are too many for labels of their own.";
        let folded = u32::try_from(figures.folded).unwrap_or(u32::MAX);
        self.gauge("headroom_folded_pods", help, None, &folded)?;
        let mut family = self
            .0
            .encode_descriptor("headroom_build", "Version of headroom.", None, MetricType::Info)?;
        family.encode_info(&[("version", env!("CARGO_PKG_VERSION"))])
    }

    /// What the tracer takes, by the names that Prometheus gives that for every program.
    fn process(&mut self, figures: &Figures) -> fmt::Result {
        let own = &figures.own;
        let help = "Total user and system CPU time spent in seconds.";
        self.counter("process_cpu", help, Some(&Unit::Seconds), &own.cpu_seconds)?;
        let help = "Resident memory size in bytes.";
        self.gauge("process_resident_memory", help, Some(&Unit::Bytes), &own.resident)?;
        self.gauge(
            "process_open_fds",
            "Number of open file descriptors.",
            None,
            &own.open_files,
        )?;
        let help = "When tracing began, since the Unix epoch in seconds.";
        self.gauge(
            "headroom_tracing_began_timestamp",
            help,
            Some(&Unit::Seconds),
            &figures.began_unix_s,
        )
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: &impl EncodeGaugeValue) -> fmt::Result {
        self.0
            .encode_descriptor(name, help, unit, MetricType::Gauge)?
            .encode_gauge(value)
    }

    fn counter<N>(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: &N) -> fmt::Result
    where
        N: prometheus_client::encoding::EncodeCounterValue,
    {
        self.0
            .encode_descriptor(name, help, unit, MetricType::Counter)?
            .encode_counter::<NoLabelSet, N, f64>(value, None)
    }
}

fn labels(pod: &PodFigures) -> [(&'static str, &str); 2] {
    [("namespace", pod.namespace.as_str()), ("vm", pod.vm.as_str())]
}
