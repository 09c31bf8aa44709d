//! What is told of a cloud: a condition, limits, metrics, and what `flannelctl status` shows.

use std::time::SystemTime;

use flannel_control::cloud_metrics::{CloudMetrics, Repair};
use flannel_control::socket::{Cloud, CloudTable};
use flannel_observe::{Condition, Conditions, Limitation};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::{CloudError, Table, View};

/// Of a quota so much may be used before that is told.
const MOST_USED: (usize, usize) = (9, 10);

/// The cloud as it was seen last.
#[derive(Clone, Debug)]
pub struct Seen {
    cloud: Cloud,
    in_step: Option<Instant>,
}

impl Seen {
    /// What the control socket tells of it.
    #[must_use]
    pub fn told(&self) -> Cloud {
        let in_step_seconds = self.in_step.map(|since| since.elapsed().as_secs());
        Cloud { in_step_seconds, ..self.cloud.clone() }
    }
}

/// Where it is told how things are in the cloud.
pub struct Reports {
    in_place: Condition,
    out_of_sight: Limitation,
    room: Limitation,
    forwarding: Limitation,
    peace: Limitation,
    order: Limitation,
    metrics: CloudMetrics,
    status: watch::Sender<Option<Seen>>,
    was_in_place: bool,
}

impl Reports {
    /// Tells by `in_place` whether the cloud leads to this host, by limits of `conditions` what else is not as it should
    /// be, and what the tables are like by the receiver that is returned.
    #[must_use]
    pub fn new(
        in_place: Condition,
        conditions: &Conditions,
        metrics: CloudMetrics,
    ) -> (Self, watch::Receiver<Option<Seen>>) {
        let (status, told) = watch::channel(None);
        let limitation = |without| conditions.limitation(without);
        let reports = Self {
            in_place,
            out_of_sight: limitation("sight of the cloud"),
            room: limitation("room in route tables"),
            forwarding: limitation("knowing whether the cloud lets it forward"),
            peace: limitation("a route table of its own"),
            order: limitation("clearing away routes of dead hosts"),
            metrics,
            status,
            was_in_place: false,
        };
        (reports, told)
    }

    /// The tables were read.
    pub(super) fn saw(&self, view: &View) {
        self.metrics.forget_tables();
        view.tables.iter().for_each(|table| self.metrics.table(&table.id, table.used, table.limit));
        self.room.set(view.tables.iter().filter_map(shortage).collect());
        let table = |table: &Table| CloudTable { id: table.id.clone(), used: table.used, limit: table.limit };
        self.status.send_modify(|status| {
            let in_step = status.as_ref().and_then(|status| status.in_step);
            let cloud = Cloud {
                target: view.target.clone(),
                place: view.place.clone(),
                tables: view.tables.iter().map(table).collect(),
                in_step_seconds: None,
            };
            *status = Some(Seen { cloud, in_step });
        });
    }

    /// Everything was compared, and is as it should be now.
    pub(super) fn succeeded(&mut self) {
        self.was_in_place = true;
        self.in_place.meet();
        self.out_of_sight.set(Vec::new());
        self.metrics.settled(SystemTime::now());
        self.status.send_modify(|status| {
            if let Some(status) = status {
                status.in_step = Some(Instant::now());
            }
        });
    }

    /// It could not be seen or mended. What was in place before is believed to be so still unless it was seen not to be.
    /// `is_blind`: nothing was seen.
    pub(super) fn failed(&mut self, error: &CloudError, is_blind: bool) {
        if self.was_in_place && is_blind {
            self.out_of_sight
                .set(vec![format!("{error}; what was in place forwards, and it is tried again")]);
        } else {
            self.was_in_place = false;
            self.in_place.fail(error.to_string());
        }
    }

    pub(super) fn repaired(&self, repair: Repair) {
        self.metrics.repaired(repair);
    }

    pub(super) fn forwarding(&self, trouble: Option<String>) {
        self.forwarding.set(trouble.into_iter().collect());
    }

    pub(super) fn contested(&self, trouble: Option<String>) {
        self.peace.set(trouble.into_iter().collect());
    }

    pub(super) fn cleared(&self, trouble: Option<&CloudError>) {
        self.order.set(trouble.iter().map(ToString::to_string).collect());
    }
}

/// What there is to tell of a table that is nearly full.
fn shortage(table: &Table) -> Option<String> {
    let limit = table.limit?;
    let (part, whole) = MOST_USED;
    (table.used * whole >= limit * part).then(|| {
        format!(
            "{} of {limit} routes of {} are used, and each host needs one: have the quota raised, or use another table",
            table.used, table.id
        )
    })
}
