//! What the environment says of Google's services.

use std::env;
use std::path::PathBuf;

use super::key_file::{Source, VARIABLE};

/// Host and port of another metadata server, as Google's libraries have it.
const METADATA_HOST: &str = "GCE_METADATA_HOST";
/// The API's URL with its version, as `gcloud` has it: an endpoint of Private Service Connect, say.
const ENDPOINT: &str = "CLOUDSDK_API_ENDPOINT_OVERRIDES_COMPUTE";

/// Where to find what.
pub(super) struct Environment {
    /// The metadata server's URL, without a slash at its end.
    pub(super) metadata: String,
    /// The API's.
    pub(super) compute: String,
    /// Where credentials come from.
    pub(super) credentials: Source,
}

impl Environment {
    /// That of this process.
    pub(super) fn of_process() -> Self {
        let text = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| env::var_os(name).map(PathBuf::from);
        Self {
            metadata: format!("http://{}", text(METADATA_HOST).as_deref().unwrap_or("169.254.169.254")),
            compute: endpoint(text(ENDPOINT).as_deref()),
            credentials: Source::of(path(VARIABLE).as_deref(), path("HOME").as_deref()),
        }
    }
}

fn endpoint(given: Option<&str>) -> String {
    given.unwrap_or("https://compute.googleapis.com/compute/v1").trim_end_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::endpoint;

    #[test]
    fn an_endpoint_has_no_slash_at_its_end() {
        assert_eq!(endpoint(Some("http://127.0.0.1:1/compute/v1/")), "http://127.0.0.1:1/compute/v1");
        assert_eq!(endpoint(None), "https://compute.googleapis.com/compute/v1");
    }
}
