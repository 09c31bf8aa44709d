//! A service of a cloud over HTTP, at an address of the router.

use std::net::{SocketAddr, SocketAddrV4};
use std::thread::{self, JoinHandle};

use anyhow::{Context as _, Result};
use axum::extract::ConnectInfo;
use tokio::sync::oneshot;

use crate::namespace::Namespace;

/// From where a request comes: a handler takes it as an argument.
pub type Caller = ConnectInfo<SocketAddr>;

/// A running service, ended when dropped.
#[derive(Debug)]
pub struct Server {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `service` at `address`.
    ///
    /// # Errors
    /// The address is taken, or is none of `namespace`.
    pub fn start(namespace: &Namespace, address: SocketAddrV4, service: axum::Router) -> Result<Self> {
        let listener = namespace.within(|| {
            let listener = std::net::TcpListener::bind(address)
                .with_context(|| format!("a service of the cloud cannot listen on {address}"))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })?;
        let (end, ended) = oneshot::channel::<()>();
        let work = move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener)?;
                let service = service.into_make_service_with_connect_info::<SocketAddr>();
                tokio::select! {
                    served = axum::serve(listener, service) => served?,
                    _ = ended => {}
                }
                Ok(())
            })
        };
        let thread = thread::spawn(move || {
            if let Err(error) = work() {
                eprintln!("a service of the cloud has ended: {error:#}");
            }
        });
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Dropping it is telling.
        self.end = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
