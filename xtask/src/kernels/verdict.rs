//! Whether a kernel's verifier accepts the programs, as the program `verifier` of the tests crate reports it.

use serde::Deserialize;

/// All that is reported about a kernel.
#[derive(Deserialize)]
pub struct Verdict {
    /// Whether it has TCX.
    pub tcx: bool,
    pub support: Support,
    pub programs: Vec<Row>,
}

/// What newer kernels offer programs.
#[derive(Deserialize)]
pub struct Support {
    pub coarse_clock: bool,
    pub check_mtu: bool,
    pub several_buffers: bool,
}

/// One program with one set of capabilities.
#[derive(Deserialize)]
pub struct Row {
    pub program: String,
    pub backend: String,
    pub capabilities: Capabilities,
    pub lines: bool,
    pub refusal: Option<String>,
    /// Whether the kernel is to take it.
    pub is_promised: bool,
    pub verified_instructions: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Capabilities {
    All,
    WithPerfmon,
    Two,
}

impl Verdict {
    /// The line of output that holds it, and no other.
    pub fn parse(line: &str) -> Option<Self> {
        line.starts_with('{').then(|| serde_json::from_str(line).ok())?
    }

    /// Programs that the kernel is to take and refused, a line each.
    pub fn broken_promises(&self) -> Vec<String> {
        let broken = self.programs.iter().filter(|row| row.is_promised);
        let told = broken.filter_map(|row| {
            let Row { program, backend, capabilities, lines, .. } = row;
            let refusal = row.refusal.as_ref()?;
            let lines = if *lines { ", with lines" } else { "" };
            Some(format!("{program} ({backend}, capabilities {capabilities:?}{lines}) is refused: {refusal}"))
        });
        told.collect()
    }

    /// Whether every program is taken with these capabilities.
    pub fn takes_all(&self, capabilities: Capabilities) -> bool {
        self.programs.iter().filter(|row| row.capabilities == capabilities).all(|row| row.refusal.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::{Capabilities, Verdict};

    const LINE: &str = r#"{"tcx":false,"support":{"coarse_clock":true,"check_mtu":true,"several_buffers":false},
        "programs":[
        {"program":"bridge","backend":"udp","capabilities":"All","lines":false,"refusal":null,"is_promised":true,
        "verified_instructions":7,"translated_bytes":8,"machine_code_bytes":9},
        {"program":"bridge","backend":"udp","capabilities":"Two","lines":true,"refusal":"no","is_promised":false,
        "verified_instructions":null,"translated_bytes":null,"machine_code_bytes":null}]}"#;

    #[test]
    fn a_line_is_read_and_others_are_not() {
        let verdict = Verdict::parse(LINE).unwrap();
        assert!(verdict.takes_all(Capabilities::All) && !verdict.takes_all(Capabilities::Two));
        assert!(Verdict::parse("test result: ok. 1 passed").is_none() && Verdict::parse("{}").is_none());
    }

    #[test]
    fn only_what_was_promised_is_broken() {
        assert!(Verdict::parse(LINE).unwrap().broken_promises().is_empty());
        let broken = LINE.replace(r#""is_promised":false"#, r#""is_promised":true"#);
        let broken = Verdict::parse(&broken).unwrap().broken_promises();
        assert_eq!(broken, ["bridge (udp, capabilities Two, with lines) is refused: no"]);
    }
}
