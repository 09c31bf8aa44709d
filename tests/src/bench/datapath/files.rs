//! The files: figures as JSON, tables as Markdown, plots as SVG.

use std::fs;
use std::path::Path as FilePath;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};

use super::Results;
use super::goals::GOALS;
use super::link::Link;
use super::measure::Measure;
use super::path::Carrier;
use super::plot::{Bar, bars};
use super::report::{self, REFERENCES, Style};

/// What is plotted.
const PLOTS: [(Link, Measure); 6] = [
    (Link::Veth, Measure::CpuPerPacket),
    (Link::Veth, Measure::PacketRate),
    (Link::Veth, Measure::FourStreams),
    (Link::Wire, Measure::CpuPerGigabyte),
    (Link::Veth, Measure::LatencyP50),
    (Link::Slow, Measure::OneStream),
];

/// Writes all of them into a directory.
pub(super) fn write(results: &Results, directory: &FilePath) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let file = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    file("datapath.json", &(serde_json::to_string(&json(results))? + "\n"))?;
    let mut plots = Vec::new();
    for (link, measure) in PLOTS {
        let bars_of = bars_of(results, link, measure);
        if !bars_of.is_empty() {
            let name = format!("{}-{}.svg", measure.name(), link.name());
            let title = format!("{} ({})", measure.title(), link.name());
            file(&name, &bars(&title, measure.unit().0, &bars_of)?)?;
            plots.push(format!("![{title}]({name})\n"));
        }
    }
    file("README.md", &readme(results, &plots.join("\n")))
}

fn bars_of(results: &Results, link: Link, measure: Measure) -> Vec<Bar> {
    let bar = |path: &super::Path| {
        let mut summary = results.samples.summary(link, path.name, measure)?;
        let label = measure.show(summary.median);
        let (_, factor) = measure.unit();
        for value in [&mut summary.median, &mut summary.low, &mut summary.high] {
            *value *= factor;
        }
        let ours = matches!(path.carrier, Carrier::Flanneld { .. });
        Some(Bar { name: path.name, label, summary, ours })
    };
    results.paths.iter().filter_map(bar).collect()
}

fn readme(results: &Results, plots: &str) -> String {
    let style = Style::Markdown;
    let links = results.options.links.iter().map(|link| {
        format!("{}\n{}", style.heading(2, link.title()), report::figures(results, *link, style))
    });
    format!(
        "# What a packet costs\n\n\
         Written by `cargo xtask bench --write`; [datapath.json](datapath.json) holds every value. {}; {} rounds, {} ms each.\n\n\
         All hosts are network namespaces of this machine, so the figures measure CPU work, not a network card. Every path \
         has two hosts of its own; each round measures all paths, one after the other. A ratio is the median of the ratios \
         within the rounds. CPU time is that of the threads that send and receive, of the kernel's threads for deferred \
         work, and of the proxies; other work of the machine is not included.\n\n\
         {}\n{}\n{plots}\n{}",
        results.machine,
        results.options.rounds,
        results.options.time,
        style.heading(2, "Goals"),
        report::goals(results, style),
        links.collect::<Vec<_>>().join("\n"),
    )
}

fn json(results: &Results) -> Value {
    let links = results.options.links.iter().map(|link| (link.name().to_owned(), link_json(results, *link)));
    let goals = GOALS.iter().filter_map(|goal| {
        let reached = goal.reached(&results.samples)?;
        Some(json!({
            "path": goal.path, "link": goal.link.name(), "measure": goal.measure.name(), "against": goal.against,
            "goal": goal.bound.value(), "reached": short(reached), "met": goal.bound.missed_by(reached).is_none(),
        }))
    });
    json!({
        "machine": results.machine,
        "rounds": results.options.rounds,
        "milliseconds": results.options.time,
        "units": "bits, datagrams and bytes per second; times and CPU times in seconds; loss as share",
        "links": links.collect::<Map<_, _>>(),
        "goals": goals.collect::<Vec<_>>(),
    })
}

fn link_json(results: &Results, link: Link) -> Value {
    let figure = |path: &str, measure: Measure| {
        let summary = results.samples.summary(link, path, measure)?;
        let ratio = |reference: &str| {
            let ratio = results.samples.ratio(link, path, measure, reference)?;
            Some((reference.to_owned(), json!(short(ratio.median))))
        };
        Some(json!({
            "median": short(summary.median), "low": short(summary.low), "high": short(summary.high),
            "ratio": REFERENCES.iter().filter_map(|reference| ratio(reference)).collect::<Map<_, _>>(),
            "values": results.samples.values(link, path, measure).iter().copied().map(short).collect::<Vec<_>>(),
        }))
    };
    let figures = |path: &str| -> Map<String, Value> {
        Measure::ALL
            .iter()
            .filter_map(|measure| Some((measure.name().to_owned(), figure(path, *measure)?)))
            .collect()
    };
    let paths = results.paths.iter().map(|path| (path.name.to_owned(), json!(figures(path.name))));
    Value::Object(paths.collect())
}

/// Four digits: there is nothing behind them.
fn short(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(value)
}
