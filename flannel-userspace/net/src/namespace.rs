//! A network namespace for each test.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test whose host cannot be made fails")]

use std::process::Command;

use flannel_model::config::interface::InterfaceOptions;
use flannel_model::underlay::Underlay;
use nix::sched::{CloneFlags, unshare};
use serde_json::Value;

use super::Netlink;

/// Runs `test` on a thread of its own in a new network namespace. Programs the test starts, such as
/// [`ip`], run in it too.
pub fn in_namespace(test: impl AsyncFnOnce(Netlink) + Send) {
    let run = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("making a network namespace, which needs root");
        ip("link set lo up");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async { test(Netlink::open().unwrap()).await });
    };
    let outcome = std::thread::scope(|scope| scope.spawn(run).join());
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// Like [`in_namespace`], with `eth0` at 192.168.77.11/24 as the underlay, by a veth pair whose other end
/// is `wire`.
pub fn on_host(test: impl AsyncFnOnce(Netlink, Underlay) + Send) {
    in_namespace(async |netlink| {
        add_interface("eth0", "192.168.77.11/24");
        let options = InterfaceOptions { iface: vec!["eth0".to_owned()], ..InterfaceOptions::default() };
        let underlay = super::interface::choose(&netlink, &options).await.unwrap();
        test(netlink, underlay).await;
    });
}

/// Adds an interface, up, with an address.
pub fn add_interface(name: &str, address: &str) {
    ip(&format!("link add {name} type veth peer name {name}-wire"));
    ip(&format!("link set {name}-wire up"));
    ip(&format!("link set {name} up"));
    ip(&format!("address add {address} dev {name}"));
}

/// Runs iproute2's `ip` and returns what it prints.
pub fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

/// What `ip -json` prints.
pub fn ip_json(arguments: &str) -> Value {
    serde_json::from_str(&ip(&format!("-json -details {arguments}"))).unwrap()
}

/// Runs a program with arguments divided by spaces and returns what it prints.
pub fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split_whitespace()).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}
