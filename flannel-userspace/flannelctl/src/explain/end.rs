//! Who sends or receives: an address, or a pod whose address the API server tells.

use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use anyhow::Context as _;
use flannel_kubernetes::PodName;

use crate::registry::AccessFlags;

/// One end of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    Address(Ipv4Addr),
    Pod(PodName),
}

impl FromStr for End {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('/') {
            return text
                .parse()
                .map(Self::Pod)
                .map_err(|error: flannel_kubernetes::PodNameError| error.to_string());
        }
        text.parse()
            .map(Self::Address)
            .map_err(|_| format!("{text} is no IPv4 address, and no pod, which is written namespace/name"))
    }
}

impl End {
    /// Its address. For a pod the API server is asked, as flanneld asks it.
    ///
    /// # Errors
    /// It does not say; the pod has no IPv4 address.
    pub(super) async fn address(&self, access: &AccessFlags) -> anyhow::Result<Ipv4Addr> {
        let pod = match self {
            Self::Address(address) => return Ok(*address),
            Self::Pod(pod) => pod,
        };
        let addresses = pod.addresses(access.access()).await?;
        let ipv4 = addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        ipv4.with_context(|| format!("the pod {pod} has no IPv4 address"))
    }
}

#[cfg(test)]
mod tests {
    use super::End;

    #[test]
    fn an_end_is_an_address_or_a_pod() {
        assert_eq!("10.5.1.2".parse(), Ok(End::Address([10, 5, 1, 2].into())));
        assert_eq!("default/web-0".parse(), Ok(End::Pod("default/web-0".parse().unwrap())));
        let refusal = |text: &str| text.parse::<End>().unwrap_err();
        assert_eq!(refusal("web"), "web is no IPv4 address, and no pod, which is written namespace/name");
        assert!(refusal("default/").contains("is no name of a pod"), "{}", refusal("default/"));
    }
}
