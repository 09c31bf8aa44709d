//! Differences from what is wanted, and repairs.

use std::fmt;

/// How something differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not there.
    Missing,
    /// It is there in another form.
    Changed,
    /// It is there, and should not be.
    Unexpected,
}

/// One object, and the name of its repair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// How it differed.
    pub fault: Fault,
    /// What, such as `chain FLANNEL-FWD (iptables)`.
    pub thing: String,
    verb: &'static str,
}

impl Repair {
    /// A chain that is missing or differs.
    pub(super) fn chain(is_there: bool, thing: String) -> Self {
        Self { fault: not_as_wanted(is_there), thing, verb: "wrote" }
    }

    /// A jump that is missing or in the wrong place.
    pub(super) fn jump(is_there: bool, from: &str, to: &str) -> Self {
        Self { fault: not_as_wanted(is_there), thing: format!("the jump from {from} to {to}"), verb: "put" }
    }

    /// Something that should not be there.
    pub(super) const fn removal(thing: String) -> Self {
        Self { fault: Fault::Unexpected, thing, verb: "removed" }
    }

    /// The same, in words that also say where.
    pub(super) fn of(self, program: &str) -> Self {
        Self { thing: format!("{} ({program})", self.thing), ..self }
    }
}

const fn not_as_wanted(is_there: bool) -> Fault {
    if is_there { Fault::Changed } else { Fault::Missing }
}

impl fmt::Display for Repair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.thing)
    }
}

/// All differences.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repairs(pub(super) Vec<Repair>);

impl Repairs {
    /// Whether everything was as it should be.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many repairs there were.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = &Repair> {
        self.0.iter()
    }
}

/// All of them on one line.
impl fmt::Display for Repairs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&texts.join(", "))
    }
}
