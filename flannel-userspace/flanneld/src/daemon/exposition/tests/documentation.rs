use std::collections::{BTreeMap, BTreeSet};

use flannel_common::Reason;

use super::coverage::everything;

const DOCUMENT: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md"));

/// A metric, from the lines about it.
#[derive(Default)]
struct Metric {
    kind: String,
    help: String,
    labels: BTreeSet<String>,
}

fn metrics(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics = BTreeMap::<String, Metric>::new();
    let mut current = String::new();
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|line| line.split_once(' ')) {
            current = name.to_owned();
            let is_first =
                metrics.insert(current.clone(), Metric { help: help.to_owned(), ..Metric::default() });
            assert!(is_first.is_none(), "{name} is there twice");
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|line| line.split_once(' ')) {
            kind.clone_into(&mut metrics.get_mut(&current).unwrap().kind);
        } else if let Some((_, labels)) = line.split_once('{') {
            let keys = labels.split("\",").filter_map(|label| label.trim_start().split_once('='));
            let keys = keys.map(|(key, _)| key.to_owned()).filter(|key| key != "le");
            metrics.get_mut(&current).unwrap().labels.extend(keys);
        }
    }
    metrics
}

fn row(name: &str, metric: &Metric) -> String {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    format!("| `{name}` | {} | {} | {} |", metric.kind, labels.join(" "), metric.help)
}

/// The rows of the document that are of this kind should be `rows`.
fn assert_documented(rows: &[String], is_row: impl Fn(&str) -> bool) {
    let documented: Vec<&str> = DOCUMENT.lines().filter(|line| is_row(line)).collect();
    assert_eq!(documented, rows, "docs/metrics.md should say:\n{}", rows.join("\n"));
}

#[test]
fn the_documentation_names_every_reason_and_no_other() {
    let row = |reason: &Reason| format!("| {} | `{reason}` | {} |", reason.verdict().label(), reason.help());
    let rows: Vec<String> = Reason::ALL.iter().map(row).collect();
    let verdicts = ["| forward |", "| pass |", "| drop |"];
    assert_documented(&rows, |line| verdicts.iter().any(|verdict| line.starts_with(verdict)));
}

#[test]
fn the_documentation_names_every_metric_and_no_other() {
    let rows: Vec<String> = metrics(&everything()).iter().map(|(name, metric)| row(name, metric)).collect();
    assert_documented(&rows, |line| line.starts_with("| `flannel_") || line.starts_with("| `process_"));
}

#[test]
fn names_follow_the_rules() {
    for (name, metric) in metrics(&everything()) {
        assert!(name.starts_with("flannel_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == "counter", "{name} is a {}", metric.kind);
        assert!(metric.help.ends_with('.') && !metric.help.ends_with(".."), "{name}: {}", metric.help);
        for unit in ["milliseconds", "microseconds", "nanoseconds", "kilobytes"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
    }
}

/// Alerts and dashboard.
const SHIPPED: [&str; 3] = [
    include_str!("../../../../../../packaging/prometheus/flannel-ebpf.rules.yml"),
    include_str!("../../../../../../packaging/prometheus/flannel-ebpf.test.yml"),
    include_str!("../../../../../../packaging/grafana/flannel-ebpf.json"),
];

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let metrics = metrics(&everything());
    let exists = |name: &str| {
        let is_histogram = |name: &str| metrics.get(name).is_some_and(|metric| metric.kind == "histogram");
        let parts = ["_bucket", "_sum", "_count"];
        metrics.contains_key(name)
            || parts.iter().filter_map(|part| name.strip_suffix(part)).any(is_histogram)
    };
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
    for text in SHIPPED {
        let words = text.split(|character| !is_part(character));
        let names: BTreeSet<&str> =
            words.filter(|word| word.starts_with("flannel_") || word.starts_with("process_")).collect();
        assert!(names.len() >= 5, "{names:?}");
        for name in names {
            assert!(exists(name), "there is no metric {name}");
        }
    }
}
