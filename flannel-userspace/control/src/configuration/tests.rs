use std::time::Duration;

use flannel_model::config::Configuration;
use flannel_observe::Conditions;
use flannel_registry::memory::Memory;
use rstest::rstest;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{ConfigMetrics, Follower, RESYNC, Served};

const BEFORE: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan"}}"#;
const DIRECT: &str = r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
const OTHER_NETWORK: &str = r#"{"Network":"10.6.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
/// Long enough for everything that does not wait for the next reading.
const SOON: Duration = Duration::from_secs(5);

struct Host {
    registry: Memory,
    served: Served,
    conditions: Conditions,
    following: JoinHandle<()>,
}

impl Drop for Host {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Host {
    async fn start() -> Self {
        let registry = Memory::default();
        registry.put_config(Some(BEFORE));
        let conditions = Conditions::default();
        let before = Configuration::parse(BEFORE.to_owned()).unwrap();
        let metrics = ConfigMetrics::default();
        let (follower, served) = Follower::new(registry.clone(), before, conditions.clone(), metrics);
        let following = tokio::spawn(async move { match follower.run().await {} });
        sleep(SOON).await;
        Self { registry, served, conditions, following }
    }

    async fn write(&self, config: Option<&str>) {
        self.registry.put_config(config);
        sleep(SOON).await;
    }

    fn serves(&self) -> String {
        self.served.borrow().text.clone()
    }
}

#[tokio::test(start_paused = true)]
async fn what_can_be_served_at_once_is() {
    let host = Host::start().await;
    assert_eq!((host.serves().as_str(), host.conditions.outdated()), (BEFORE, None));
    host.write(Some(DIRECT)).await;
    assert_eq!((host.serves().as_str(), host.conditions.outdated()), (DIRECT, None));
    assert!(host.served.borrow().backend.direct_routing());
}

#[rstest]
#[case::restart(
    Some(OTHER_NETWORK),
    "until its flanneld is restarted: Network from 10.5.0.0/16 to 10.6.0.0/16"
)]
#[case::half_written(
    Some(r#"{"Network":"10.5"#),
    "cannot be served, so the one of before stays in force: the network configuration is not a JSON object"
)]
#[case::invalid(
    Some(r#"{"Network":"10.5.0.0/16","Backend":{"Type":"vxlan","MTU":9}}"#),
    "MTU is 9: set it to 118 to 65535"
)]
#[case::deleted(None, "not found in etcd store")]
#[tokio::test(start_paused = true)]
async fn the_one_of_before_stays_in_force(#[case] config: Option<&str>, #[case] told: &str) {
    let host = Host::start().await;
    host.write(config).await;
    assert_eq!(host.serves(), BEFORE, "nothing of it is served, not even what could be");
    let outdated = host.conditions.outdated().unwrap();
    assert!(outdated.contains(told), "{outdated}");
    assert!(host.conditions.pending().is_empty(), "the host forwards all the same");
    host.write(Some(BEFORE)).await;
    assert_eq!((host.serves().as_str(), host.conditions.outdated()), (BEFORE, None));
}

/// Half a configuration may be written first and the rest of it a moment later.
#[tokio::test(start_paused = true)]
async fn a_flaw_that_is_mended_is_served() {
    let host = Host::start().await;
    host.write(Some("{")).await;
    host.write(Some(DIRECT)).await;
    assert_eq!((host.serves().as_str(), host.conditions.outdated()), (DIRECT, None));
}

#[tokio::test(start_paused = true)]
async fn a_change_that_nobody_tells_is_found() {
    let host = Host::start().await;
    host.registry.set_deaf(true);
    sleep(SOON).await;
    let reads = host.registry.config_reads();
    host.registry.put_config(Some(DIRECT));
    sleep(RESYNC).await;
    assert_eq!(host.serves(), DIRECT, "it is read with every attempt to follow it");
    let reads = host.registry.config_reads() - reads;
    assert!((20..=80).contains(&reads), "{reads} times within a minute");
}

#[tokio::test(start_paused = true)]
async fn it_is_read_now_and_then_without_a_change() {
    let host = Host::start().await;
    let reads = host.registry.config_reads();
    sleep(10 * RESYNC).await;
    let reads = host.registry.config_reads() - reads;
    assert!((8..=13).contains(&reads), "{reads} times in ten minutes");
}
