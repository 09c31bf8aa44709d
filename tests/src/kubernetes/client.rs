//! Requests to the API server.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use http::Request;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;

use crate::namespace::Namespace;

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(20);

/// Somebody who may do everything.
#[derive(Clone, Debug)]
pub struct ApiClient {
    pub(super) namespace: Namespace,
    pub(super) kubeconfig: PathBuf,
}

impl ApiClient {
    /// Asks the API server.
    ///
    /// # Errors
    /// It does not answer, or refuses.
    pub fn request(&self, method: &str, path: &str, body: Option<(&str, &Value)>) -> Result<Value> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((kind, _)) = body {
            request = request.header("Content-Type", kind);
        }
        let request =
            request.body(body.map(|(_, value)| value.to_string().into_bytes()).unwrap_or_default())?;
        self.run(move |client| async move {
            let text = tokio::time::timeout(REQUEST, client.request_text(request)).await??;
            Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)))
        })
    }

    /// Has `work` done.
    ///
    /// # Errors
    /// There can be no client, or the work fails.
    pub fn run<T, F>(&self, work: impl FnOnce(Client) -> F + Send) -> Result<T>
    where
        T: Send,
        F: Future<Output = Result<T>>,
    {
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        self.namespace.within(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let config =
                    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
                work(Client::try_from(config)?).await
            })
        })
    }
}
