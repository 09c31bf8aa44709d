//! An API server that plays a part: it gives exactly the answers that a test wants, among them those that no proper one
//! gives.

use std::sync::{Arc, Mutex};

use flannel_registry::KubernetesMetrics;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::api::Access;
use crate::nodes::{NodeName, Nodes};

/// A request: `GET /api/v1/nodes?limit=250`, and its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) body: String,
}

/// A status, and the body to it.
pub(crate) type Answer = (u16, String);

/// The server, as long as it is not dropped with its runtime.
#[derive(Clone)]
pub(crate) struct Stage {
    url: String,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Stage {
    /// Answers every request by `part`. Every connection ends with its answer.
    pub(crate) async fn set(part: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (part, heard) = (Arc::new(part), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (part, heard) = (part.clone(), heard.clone());
                tokio::spawn(async move { serve(stream, &*part, &heard).await });
            }
        });
        Self { url, asked }
    }

    /// The nodes as this server shows them, for the node `own`.
    pub(crate) async fn nodes(&self, name: NodeName) -> Nodes {
        let access = Access { url: Some(self.url.clone()), kubeconfig: None };
        let prefix = "flannel.alpha.coreos.com".parse().unwrap();
        Nodes::open(access, prefix, name, KubernetesMetrics::default()).await.unwrap()
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    part: &(impl Fn(&Request) -> Answer + Sync),
    heard: &Mutex<Vec<Request>>,
) {
    let Some(request) = receive(&mut stream).await else { return };
    heard.lock().unwrap().push(request.clone());
    let (status, body) = part(&request);
    let head =
        format!("HTTP/1.1 {status} Part\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n");
    // Nobody may be left to hear it.
    let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

async fn receive(stream: &mut TcpStream) -> Option<Request> {
    let mut text = String::new();
    loop {
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).await.ok().filter(|length| *length > 0)?;
        text.push_str(&String::from_utf8_lossy(&bytes[..length]));
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            let line = head.lines().next()?.trim_end_matches(" HTTP/1.1").trim_end_matches('?').to_owned();
            return Some(Request { line, body: body.to_owned() });
        }
    }
}
