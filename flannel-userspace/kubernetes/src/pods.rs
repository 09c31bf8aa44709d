//! The addresses of pods, for who names a pod instead.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use flannel_registry::KubernetesMetrics;

use crate::api::{Access, Api};
use crate::error::ApiError;

/// A pod by its name, written `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodName {
    namespace: String,
    name: String,
}

/// It is not how a pod is named.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no name of a pod: write namespace/name, both of lower-case letters, digits, '-' and '.'")]
pub struct PodNameError(String);

/// A pod has no address.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// The API server does not tell of it.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// It has none yet, or none any more.
    #[error("the pod {0} has no address: it is not running")]
    NoAddress(PodName),
}

impl FromStr for PodName {
    type Err = PodNameError;

    fn from_str(text: &str) -> Result<Self, PodNameError> {
        let is_name = |name: &str| {
            let is_allowed = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.');
            name.bytes().all(is_allowed) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        };
        let error = || PodNameError(text.to_owned());
        let (namespace, name) = text.split_once('/').ok_or_else(error)?;
        let is_good = is_name(namespace) && is_name(name);
        is_good.then(|| Self { namespace: namespace.to_owned(), name: name.to_owned() }).ok_or_else(error)
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl PodName {
    /// The addresses of the pod, its primary one first. That takes the right to `get` pods.
    ///
    /// # Errors
    /// The API server does not tell of it, or it has none.
    pub async fn addresses(&self, access: Access) -> Result<Vec<IpAddr>, PodError> {
        let api = Api::open(access, KubernetesMetrics::default()).await?;
        let status = api.pod(&self.namespace, &self.name).await?.status;
        let texts = std::iter::once(status.pod_ip).chain(status.pod_ips.into_iter().map(|ip| ip.ip));
        let mut addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
        addresses.dedup();
        if addresses.is_empty() { Err(PodError::NoAddress(self.clone())) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{PodError, PodName};
    use crate::api::Access;
    use crate::stage::Stage;

    #[rstest]
    #[case("web")]
    #[case("default/")]
    #[case("/web")]
    #[case("default/../secrets/x")]
    #[case("default/we b")]
    #[case("Default/web")]
    fn what_names_no_pod_is_refused(#[case] text: &str) {
        let error = text.parse::<PodName>().unwrap_err().to_string();
        assert!(error.starts_with(text), "{error}");
    }

    #[rstest]
    #[case(r#"{"podIP":"10.244.1.7","podIPs":[{"ip":"10.244.1.7"},{"ip":"fd00::7"}]}"#, &["10.244.1.7", "fd00::7"])]
    #[case(r#"{"podIP":"10.244.1.7"}"#, &["10.244.1.7"])]
    #[case(r#"{"phase":"Pending"}"#, &[])]
    #[tokio::test]
    async fn a_pod_has_the_addresses_of_its_status(#[case] status: &str, #[case] wanted: &[&str]) {
        let answer = format!(r#"{{"spec":{{"nodeName":"h1"}},"status":{status}}}"#);
        let stage = Stage::set(move |_| (200, answer.clone())).await;
        let pod: PodName = "default/web".parse().unwrap();
        let access = Access { url: Some(stage.url().to_owned()), kubeconfig: None };
        match pod.addresses(access).await {
            Ok(found) => assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), wanted),
            Err(PodError::NoAddress(_)) => assert!(wanted.is_empty()),
            Err(error) => panic!("{error}"),
        }
        assert_eq!(stage.asked()[0].line, "GET /api/v1/namespaces/default/pods/web");
    }
}
