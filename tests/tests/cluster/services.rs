//! What pods, nodes and others reach by addresses of pods and of services, and which source the servers see.

use std::net::{Ipv4Addr, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use flannel_tests::kubernetes::Lab;
use flannel_tests::kubernetes::lab::{host_pod, pod, service};
use flannel_tests::namespace::Namespace;
use flannel_tests::traffic::Endpoint;
use serde_json::{Value, json};

use crate::ask::{Checks, http, source, udp, udp_by, udp_source};

/// Port of a service's HTTP and of its UDP, and those of the pods themselves.
const HTTP: u16 = 80;
const UDP: u16 = 90;
const POD_HTTP: u16 = 8080;
const POD_UDP: u16 = 8081;

/// The pods and services of these checks, and the ends of traffic.
struct Scene<'a> {
    lab: &'a Lab,
    /// A pod on each node that serves, and one that asks.
    servers: [Endpoint; 2],
    clients: [Endpoint; 2],
    /// The subnets of the nodes.
    subnets: [Ipv4Addr; 2],
    /// Whether hosts send into the tunnel from the flannel device's address.
    is_tunnelled: bool,
}

/// Everything of services that a backend may spoil.
pub fn check_all(lab: &Lab, is_tunnelled: bool, checks: &mut Checks) -> Result<()> {
    lab.apply(&objects())?;
    let scene = Scene {
        lab,
        servers: [lab.endpoint(0, "server-1")?, lab.endpoint(1, "server-2")?],
        clients: [lab.endpoint(0, "client-1")?, lab.endpoint(1, "client-2")?],
        subnets: [subnet(lab, 0)?, subnet(lab, 1)?],
        is_tunnelled,
    };
    lab.wait_pod("host-1")?;
    lab.wait_pod("host-2")?;
    scene.pods_reach_pods(checks);
    scene.services_in_the_cluster(checks)?;
    scene.hosts_and_their_pods(checks)?;
    scene.node_ports(checks)?;
    scene.affinity(checks)?;
    scene.endpoints_that_go(checks)
}

fn objects() -> Vec<Value> {
    let server = |number: u8| {
        let (name, node) = (format!("server-{number}"), format!("h{number}"));
        pod(&name, &node, &json!({ "role": "server", "name": name }))
    };
    let client =
        |number: u8| pod(&format!("client-{number}"), &format!("h{number}"), &json!({ "role": "client" }));
    let of_host =
        |number: u8| host_pod(&format!("host-{number}"), &format!("h{number}"), &json!({ "role": "host" }));
    let only = |name: &str| json!({ "name": name });
    vec![
        server(1),
        server(2),
        client(1),
        client(2),
        of_host(1),
        of_host(2),
        service("both", &json!({ "role": "server" }), &json!({})),
        service("one", &only("server-1"), &json!({})),
        service("two", &only("server-2"), &json!({})),
        service("hosts", &json!({ "role": "host" }), &json!({})),
        service("sticky", &json!({ "role": "server" }), &json!({ "sessionAffinity": "ClientIP" })),
        service("open", &only("server-2"), &json!({ "type": "NodePort" })),
        service("local", &only("server-2"), &json!({ "type": "NodePort", "externalTrafficPolicy": "Local" })),
    ]
}

/// The first address of a node's subnet.
fn subnet(lab: &Lab, node: usize) -> Result<Ipv4Addr> {
    let node = lab.api.node(&lab.node(node)?.machine.host.name)?;
    let subnet = node["spec"]["podCIDR"].as_str().context("no podCIDR")?;
    Ok(subnet.split('/').next().context("no address")?.parse()?)
}

impl Scene<'_> {
    fn host(&self, node: usize) -> Result<&Namespace> {
        Ok(&self.lab.node(node)?.machine.host.namespace)
    }

    fn address(&self, node: usize) -> Result<Ipv4Addr> {
        Ok(self.lab.node(node)?.machine.host.address)
    }

    /// The address by which a node sends to pods of the other one.
    fn tunnel_source(&self, node: usize) -> Result<Ipv4Addr> {
        if self.is_tunnelled { Ok(self.subnets[node]) } else { self.address(node) }
    }

    /// The address of a node's bridge, by which it sends to its own pods.
    fn bridge(&self, node: usize) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.subnets[node]) + 1)
    }

    fn service(&self, name: &str) -> Result<Value> {
        Ok(self.lab.api.request("GET", &format!("/api/v1/namespaces/default/services/{name}"), None)?["spec"]
            .take())
    }

    fn cluster_ip(&self, name: &str) -> Result<Ipv4Addr> {
        Ok(self.service(name)?["clusterIP"].as_str().context("no clusterIP")?.parse()?)
    }

    /// The ports of nodes for HTTP and UDP.
    fn node_port(&self, name: &str) -> Result<[u16; 2]> {
        let service = self.service(name)?;
        let port = |number: usize| {
            let port = service["ports"][number]["nodePort"].as_u64().context("no port")?;
            Ok::<_, anyhow::Error>(u16::try_from(port)?)
        };
        Ok([port(0)?, port(1)?])
    }

    fn pods_reach_pods(&self, checks: &mut Checks) {
        for (from, to) in [(0, 1), (1, 0), (0, 0)] {
            let (client, server) = (&self.clients[from], &self.servers[to]);
            let what = format!("{} to {}", client.name, server.name);
            let seen = |by, ask: fn(&Namespace, (Ipv4Addr, u16)) -> Result<Ipv4Addr>, port| {
                (format!("{what} by {by}"), move || ask(&client.namespace, (server.address, port)))
            };
            let (name, ask) = seen("HTTP", source, POD_HTTP);
            checks.expect(&name, &client.address, ask);
            let (name, ask) = seen("UDP", udp_source, POD_UDP);
            checks.expect(&name, &client.address, ask);
        }
    }

    fn services_in_the_cluster(&self, checks: &mut Checks) -> Result<()> {
        let [one, two, hosts] = [self.cluster_ip("one")?, self.cluster_ip("two")?, self.cluster_ip("hosts")?];
        for client in &self.clients {
            for (name, ip) in [("one", one), ("two", two)] {
                let what = format!("{} to the service {name}", client.name);
                checks.expect(&what, &client.address, || source(&client.namespace, (ip, HTTP)));
                let what = format!("{what} by UDP");
                checks.expect(&what, &client.address, || udp_source(&client.namespace, (ip, UDP)));
                // More than a packet holds, and less than the 2048 bytes that netexec reads.
                let long = "x".repeat(1900);
                let what = format!("{what} in fragments");
                checks.expect(&what, &long, || udp(&client.namespace, (ip, UDP), &format!("echo {long}")));
            }
        }
        // To itself: masqueraded, or the server would answer itself directly.
        for (node, ip) in [one, two].into_iter().enumerate() {
            let server = &self.servers[node];
            let what = format!("{} to itself by its service", server.name);
            checks.expect(&what, &self.bridge(node), || source(&server.namespace, (ip, HTTP)));
        }
        for (node, ip) in [two, one].into_iter().enumerate() {
            let what = format!("host {} to a service on the other node", node + 1);
            let (host, expected) = (self.host(node)?, self.tunnel_source(node)?);
            checks.expect(&what, &expected, || source(host, (ip, HTTP)));
            checks.expect(&format!("{what} by UDP"), &expected, || udp_source(host, (ip, UDP)));
        }
        for (node, client) in self.clients.iter().enumerate() {
            let what = format!("{} to pods with the host's network by a service", client.name);
            let nodes = [self.address(0)?, self.address(1)?];
            checks.note(
                &what,
                (0..8).try_for_each(|_| {
                    let seen = source(&client.namespace, (hosts, HTTP))?;
                    // Masqueraded on the way out; a node's own pods it sees as they are.
                    ensure!(nodes[node] == seen || client.address == seen, "asked by {seen}");
                    Ok(())
                }),
            );
        }
        self.webhooks(checks)
    }

    /// What the API server does with nodes and pods: it asks kubelet, which runs programs in pods and reads their logs.
    fn webhooks(&self, checks: &mut Checks) -> Result<()> {
        for name in ["client-1", "client-2"] {
            let run = || self.lab.api.kubectl(&["exec", name, "--", "hostname"], "");
            checks.expect(&format!("kubectl exec in {name}"), &format!("{name}\n"), run);
        }
        Ok(())
    }

    fn hosts_and_their_pods(&self, checks: &mut Checks) -> Result<()> {
        for node in [0, 1] {
            let other = 1 - node;
            let (host, own, far) = (self.host(node)?, &self.servers[node], &self.servers[other]);
            let what = |to: &str| format!("host {} to {to}", node + 1);
            checks.expect(&what("its own pod"), &self.bridge(node), || source(host, (own.address, POD_HTTP)));
            let expected = self.tunnel_source(node)?;
            checks.expect(&what("a pod of the other"), &expected, || source(host, (far.address, POD_HTTP)));
            checks.expect(&what("a pod of the other by UDP"), &expected, || {
                udp_source(host, (far.address, POD_UDP))
            });
            let (client, own, far) = (&self.clients[node], self.address(node)?, self.address(other)?);
            let what = |to: &str| format!("{} to {to}", client.name);
            checks.expect(&what("its host"), &client.address, || source(&client.namespace, (own, POD_HTTP)));
            checks.expect(&what("the other host"), &own, || source(&client.namespace, (far, POD_HTTP)));
        }
        Ok(())
    }

    fn node_ports(&self, checks: &mut Checks) -> Result<()> {
        let outside = self.lab.network.lan();
        let [http_port, udp_port] = self.node_port("open")?;
        // The server is on the second node.
        for (node, expected) in [(0, self.tunnel_source(0)?), (1, self.bridge(1))] {
            let address = self.address(node)?;
            let what = |who: &str| format!("{who} to the node port of node {}", node + 1);
            checks.expect(&what("outside"), &expected, || source(outside, (address, http_port)));
            checks.expect(&what("outside by UDP"), &expected, || udp_source(outside, (address, udp_port)));
            let client = &self.clients[0];
            checks.expect(&what("client-1"), &expected, || source(&client.namespace, (address, http_port)));
            let host = self.host(node)?;
            checks.expect(&what("the host itself"), &expected, || source(host, (address, http_port)));
        }
        let [http_port, udp_port] = self.node_port("local")?;
        let (here, there) = (self.address(1)?, self.address(0)?);
        let client: Ipv4Addr = flannel_tests::network::ETCD_ADDRESS;
        checks.expect("the client's address at a local node port", &client, || {
            source(outside, (here, http_port))
        });
        checks.expect("the same by UDP", &client, || udp_source(outside, (here, udp_port)));
        let elsewhere = source(outside, (there, http_port));
        checks.note(
            "a local node port without a server",
            match elsewhere {
                Ok(address) => bail_answer(address),
                Err(_) => Ok(()),
            },
        );
        // In the cluster, the policy does not hold, and nobody is masqueraded.
        let pod = &self.clients[0];
        checks.expect("a pod by the local node port of its node", &pod.address, || {
            source(&pod.namespace, (there, http_port))
        });
        Ok(())
    }

    fn affinity(&self, checks: &mut Checks) -> Result<()> {
        let (sticky, both) = (self.cluster_ip("sticky")?, self.cluster_ip("both")?);
        for client in &self.clients {
            let names = |ip, times| -> Result<std::collections::BTreeSet<String>> {
                (0..times).map(|_| http(&client.namespace, (ip, HTTP), "/hostname")).collect()
            };
            let what = format!("affinity of {}", client.name);
            checks.expect(&what, &1, || Ok(names(sticky, 12)?.len()));
            // Of 40, not one goes to the other server once in 10^12.
            checks.expect(&format!("{what} where there is none"), &2, || Ok(names(both, 40)?.len()));
        }
        Ok(())
    }

    /// A socket goes on to ask a service whose only server goes and is replaced on the other node.
    fn endpoints_that_go(&self, checks: &mut Checks) -> Result<()> {
        let server = |name: &str, node| pod(name, node, &json!({ "name": "moving" }));
        self.lab.apply(&[
            server("moving-1", "h1"),
            service("moving", &json!({ "name": "moving" }), &json!({})),
        ])?;
        self.lab.wait_pod("moving-1")?;
        let ip = self.cluster_ip("moving")?;
        let socket = self.clients[0].namespace.within(|| Ok(UdpSocket::bind("0.0.0.0:0")?))?;
        let ask = |checks: &mut Checks, name: &str| {
            checks.expect(&format!("{name} by the same socket"), &name.to_owned(), || {
                udp_by(&socket, (ip, UDP), "hostname")
            });
        };
        ask(checks, "moving-1");
        self.lab.apply(&[server("moving-2", "h2")])?;
        self.lab.wait_pod("moving-2")?;
        self.lab.api.kubectl(&["delete", "pod", "moving-1", "--grace-period=0", "--force"], "")?;
        ask(checks, "moving-2");
        Ok(())
    }
}

fn bail_answer(address: Ipv4Addr) -> Result<()> {
    bail!("answered, and was asked by {address}")
}
