//! `/metrics/resource`: what metrics servers read, in upstream's few families, each sample with the time it was taken.

use http::Response;
use kedge_metrics::{Text, amount, seconds};
use kedge_stats::{ContainerStats, CpuStats, MemoryStats, PodStats, Summary};

use super::{Body, Server, metrics};

/// Writes the samples of one container or pod, with these labels.
type Write<T> = dyn Fn(&mut Text, &[(&str, &str)], &T);

/// The answer.
pub(super) async fn answer(server: &Server) -> Response<Body> {
    let summary = server.collector.cpu_and_memory().await;
    metrics::response(render(&summary))
}

fn render(summary: &Summary) -> Text {
    let mut text = Text::default();
    node(&mut text, summary);
    containers(&mut text, summary);
    pods(&mut text, summary);
    let failed = summary.node.cpu.as_ref().is_none_or(|cpu| cpu.usage_core_nano_seconds.is_none());
    let help = "1 where figures could not be read.";
    text.single("resource_scrape_error", "gauge", help, f64::from(u8::from(failed)));
    text.single("scrape_error", "gauge", help, f64::from(u8::from(failed)));
    text
}

fn node(text: &mut Text, summary: &Summary) {
    let node = &summary.node;
    text.family("node_cpu_usage_seconds_total", "counter", "Core-seconds that the node used.");
    if let Some(cpu) = &node.cpu {
        cpu_sample(text, "node_cpu_usage_seconds_total", &[], cpu);
    }
    text.family("node_memory_working_set_bytes", "gauge", "Working set of the node.");
    if let Some(memory) = &node.memory {
        memory_sample(text, "node_memory_working_set_bytes", &[], memory);
    }
    text.family("node_swap_usage_bytes", "gauge", "Swap that the node uses.");
    if let Some((swap, used)) = node.swap.as_ref().and_then(|swap| Some((swap, swap.swap_usage_bytes?))) {
        text.sample_at("node_swap_usage_bytes", &[], amount(used), swap.time);
    }
}

fn containers(text: &mut Text, summary: &Summary) {
    let mut each = |name: &str, kind: &str, help: &str, write: &Write<ContainerStats>| {
        text.family(name, kind, help);
        for pod in &summary.pods {
            for container in &pod.containers {
                let labels = [
                    ("container", container.name.as_str()),
                    ("namespace", pod.pod_ref.namespace.as_str()),
                    ("pod", pod.pod_ref.name.as_str()),
                ];
                write(text, &labels, container);
            }
        }
    };
    let name = "container_cpu_usage_seconds_total";
    each(name, "counter", "Core-seconds that the container used.", &|text, labels, container| {
        container.cpu.iter().for_each(|cpu| cpu_sample(text, name, labels, cpu));
    });
    let name = "container_memory_working_set_bytes";
    each(name, "gauge", "Working set of the container.", &|text, labels, container| {
        container.memory.iter().for_each(|memory| memory_sample(text, name, labels, memory));
    });
    let name = "container_start_time_seconds";
    each(name, "gauge", "When the container was made.", &|text, labels, container| {
        let millis = u64::try_from(container.start_time.as_millisecond()).unwrap_or(0);
        if millis > 0 {
            text.sample(name, labels, amount(millis) / 1000.0);
        }
    });
    let name = "container_swap_usage_bytes";
    each(name, "gauge", "Swap that the container uses.", &|text, labels, container| {
        let swap = container.swap.as_ref().and_then(|swap| Some((swap.time, swap.swap_usage_bytes?)));
        swap.iter().for_each(|(time, used)| text.sample_at(name, labels, amount(*used), *time));
    });
    let name = "container_swap_limit_bytes";
    each(name, "gauge", "Swap that the container may use.", &|text, labels, container| {
        let Some(swap) = &container.swap else { return };
        if let Some(left) = swap.swap_available_bytes {
            text.sample_at(name, labels, amount(left + swap.swap_usage_bytes.unwrap_or(0)), swap.time);
        }
    });
}

fn pods(text: &mut Text, summary: &Summary) {
    let mut each = |name: &str, kind: &str, help: &str, write: &Write<PodStats>| {
        text.family(name, kind, help);
        for pod in &summary.pods {
            write(text, &[("namespace", &pod.pod_ref.namespace), ("pod", &pod.pod_ref.name)], pod);
        }
    };
    let name = "pod_cpu_usage_seconds_total";
    each(name, "counter", "Core-seconds that the pod used.", &|text, labels, pod| {
        pod.cpu.iter().for_each(|cpu| cpu_sample(text, name, labels, cpu));
    });
    let name = "pod_memory_working_set_bytes";
    each(name, "gauge", "Working set of the pod.", &|text, labels, pod| {
        pod.memory.iter().for_each(|memory| memory_sample(text, name, labels, memory));
    });
    let name = "pod_swap_usage_bytes";
    each(name, "gauge", "Swap that the pod uses.", &|text, labels, pod| {
        let swap = pod.swap.as_ref().and_then(|swap| Some((swap.time, swap.swap_usage_bytes?)));
        swap.iter().for_each(|(time, used)| text.sample_at(name, labels, amount(*used), *time));
    });
}

fn cpu_sample(text: &mut Text, name: &str, labels: &[(&str, &str)], cpu: &CpuStats) {
    if let Some(total) = cpu.usage_core_nano_seconds {
        text.sample_at(name, labels, seconds(total), cpu.time);
    }
}

fn memory_sample(text: &mut Text, name: &str, labels: &[(&str, &str)], memory: &MemoryStats) {
    if let Some(bytes) = memory.working_set_bytes {
        text.sample_at(name, labels, amount(bytes), memory.time);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kedge_stats::{NodeStats, PodReference};

    use super::*;

    #[test]
    fn samples_have_labels_and_times() {
        let time = Timestamp::from_second(5).unwrap();
        let cpu = CpuStats { time, usage_core_nano_seconds: Some(1_500_000_000), ..CpuStats::default() };
        let container = ContainerStats {
            name: "c".to_owned(),
            start_time: Timestamp::from_millisecond(2500).unwrap(),
            cpu: Some(cpu.clone()),
            ..ContainerStats::default()
        };
        let pod_ref = PodReference { name: "p".to_owned(), namespace: "n".to_owned(), uid: "u".to_owned() };
        let pod = PodStats { pod_ref, containers: vec![container], ..PodStats::default() };
        let node = NodeStats { cpu: Some(cpu), ..NodeStats::default() };
        let text = render(&Summary { node, pods: vec![pod] }).finish();
        for line in [
            "node_cpu_usage_seconds_total 1.5 5000",
            "container_cpu_usage_seconds_total{container=\"c\",namespace=\"n\",pod=\"p\"} 1.5 5000",
            "container_start_time_seconds{container=\"c\",namespace=\"n\",pod=\"p\"} 2.5",
            "resource_scrape_error 0",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in\n{text}");
        }
        assert!(!text.contains("pod_memory_working_set_bytes{"), "what is unknown is absent");
    }
}
