//! The daemon's life, from top to bottom: its settings, what it needs, what it keeps, how it ends.

mod check;
mod cloud;
mod configuration;
mod control;
mod error;
mod exposition;
mod leave;
mod log;
mod membership;
mod others;
mod programs;
mod report;
mod rules;
mod signals;
mod start;
mod surroundings;

use std::future;

use flannel_control::Metrics;
use flannel_control::exclusive::Exclusive;
use flannel_control::lease::Lost;
use flannel_control::reconcile::Loop;
use flannel_control::service::Service;
use flannel_datapath::Unavailable;
use flannel_datapath::metrics::DatapathSource;
use flannel_model::condition::{DATAPATH, FORWARDING};
use flannel_observe::{Condition, Files, Listening, Server, Vitals};
use flannel_privileges::Needs;
use tokio::sync::oneshot;
use tracing::{error, info};

use crate::cli::Options;
pub use check::check;
use control::{Desk, Registered};
pub use error::DaemonError;
use exposition::exposition;
pub use log::{LogLevelHandle, start_logging};
use membership::{InEtcd, InKubernetes, Membership};
use signals::Signals;
use start::{Ends, Started};

/// Runs the daemon until a signal ends it; the datapath continues without it.
///
/// # Errors
/// It cannot start, or its lease is another host's.
pub async fn run(options: Options, log_level: LogLevelHandle) -> Result<(), DaemonError> {
    flannel_privileges::check()?;
    // What needs more privileges than the daemon keeps comes first; threads inherit those of the thread that starts
    // them.
    flannel_privileges::raise_memory_limit();
    let unavailable = programs::unavailable(&options.pin_dir)?;
    let listening = options.endpoints.listen()?;
    // aya probes the kernel once; some probes need more than what is kept, and without them programs have no names.
    let _ = aya::features();
    flannel_privileges::confine(needs(&options))?;
    let mut signals = Signals::new()?;
    tokio::spawn(log_level.clone().follow(log::LogLevelSignals::new()?));
    let vitals = Vitals::default();
    // Whoever serves the network has its socket.
    let _network = Exclusive::network(&options.etcd.prefix).await?;
    let desk = Desk::open(&options, &vitals, log_level)?;
    let metrics = Metrics::default();
    let pending = Pending::take(&vitals);
    tokio::spawn(report::tell_service_manager(vitals.conditions.clone()));
    tokio::spawn(report::feed_watchdog(vitals.liveness.clone()));
    let _server = show(&options, &vitals, &metrics, unavailable.is_none(), listening)?;
    let service = async {
        match options.kubernetes.clone() {
            Some(kubernetes) => {
                let (metrics_of_api, conditions) = (metrics.kubernetes.clone(), vitals.conditions.clone());
                let membership = InKubernetes::new(&kubernetes, metrics_of_api, conditions).await?;
                serve(membership, options, &vitals, &metrics, pending, unavailable, desk).await
            }
            None => {
                let membership = InEtcd::new(&options, &metrics)?;
                serve(membership, options, &vitals, &metrics, pending, unavailable, desk).await
            }
        }
    };
    let outcome = tokio::select! {
        outcome = service => outcome,
        never = vitals.liveness.heart("event loop").keep_beating() => match never {},
        signal = signals.next() => {
            info!(signal, "ending; the datapath continues to forward");
            Ok(())
        }
    };
    report::notify_end();
    outcome
}

/// What must be met for the host to forward.
struct Pending {
    configuration: Condition,
    lease: Condition,
    datapath: Condition,
    subnet_file: Condition,
    forwarding: Condition,
    listing: Condition,
}

impl Pending {
    fn take(vitals: &Vitals) -> Self {
        let condition = |name| vitals.conditions.add(name);
        Self {
            configuration: condition("network configuration read"),
            lease: condition("subnet leased"),
            datapath: condition(DATAPATH),
            subnet_file: condition("subnet file written"),
            forwarding: condition(FORWARDING),
            listing: condition("every known peer reached"),
        }
    }
}

/// Settings that may need a privilege for as long as the daemon runs.
fn needs(options: &Options) -> Needs {
    Needs {
        reads_files: match &options.kubernetes {
            Some(kubernetes) => kubernetes.files().next().is_some(),
            None => options.etcd.files().next().is_some(),
        },
        iptables: options.rules.masquerade || options.rules.forward,
    }
}

fn show(
    options: &Options,
    vitals: &Vitals,
    metrics: &Metrics,
    has_programs: bool,
    listening: Listening,
) -> Result<Server, DaemonError> {
    let source = DatapathSource { pin_dir: options.pin_dir.clone(), per_peer: options.metrics_per_peer };
    let files = Files { subnet: options.subnet_file.clone(), state: options.state_file.clone() };
    let exposition = exposition(vitals, metrics, has_programs.then_some(&source), files);
    let server = Server::start(listening, vitals.clone(), exposition)?;
    for address in server.addresses() {
        info!(%address, "showing health and metrics");
    }
    Ok(server)
}

async fn serve<M: Membership>(
    membership: M,
    options: Options,
    vitals: &Vitals,
    metrics: &Metrics,
    pending: Pending,
    unavailable: Option<Unavailable>,
    desk: Desk,
) -> Result<(), DaemonError> {
    let Desk { control, listener, orders, mut leaves } = desk;
    let mut service = Service::default();
    if let Some(listener) = listener {
        service.run(listener.run(control.clone()));
    }
    control.registered(Registered { endpoints: membership.endpoints(), nodes: membership.nodes() });
    let (synced, first_sync) = oneshot::channel();
    let ends = Ends { synced, orders };
    let Started {
        reconciler,
        follower,
        served,
        lease_keeping,
        address_claim,
        lease_state,
        presence,
        subnet_file,
        listing,
        rules,
        other_rules,
        cloud,
        surroundings,
        approver,
        marker: _marker,
    } = tokio::select! {
        started = start::start(membership, options, vitals, metrics, pending, unavailable, ends) => started?,
        end = service.end() => return Err(end.into()),
    };
    let (leases, state) = (metrics.leases.clone(), lease_state.clone());
    service.hold(lease_keeping);
    service.run(async move {
        leases.follow(state).await;
        future::pending().await
    });
    if let Some(address_claim) = address_claim {
        service.run(address_claim.run(lease_state.clone()));
    }
    service.run(rules.run());
    service.run(other_rules.run());
    service.run(surroundings.run());
    if let Some((keeper, seen)) = cloud {
        service.run(keeper.run());
        control.sees(seen);
    }
    if let Some(approver) = approver {
        service.run(approver.run());
    }
    service.run(Loop::new(reconciler).run());
    service.run(follower.run());
    control.serving(lease_state, served);
    service.run(async move {
        if first_sync.await.is_ok() {
            listing.meet();
            info!(subnet_file = %subnet_file.display(), "ready: every known peer is reached");
            report::notify(&[sd_notify::NotifyState::Ready]);
        }
        future::pending().await
    });
    let error = loop {
        tokio::select! {
            end = service.end() => break DaemonError::from(end),
            Some(leave) = leaves.recv() => if leave.carry_out(&presence).await {
                return Ok(());
            },
        }
    };
    if let DaemonError::Lost(Lost::Taken { .. } | Lost::Contested { .. } | Lost::Reassigned { .. }) = &error {
        error!("ending; the datapath continues to forward by the peers known so far");
    }
    Err(error)
}
