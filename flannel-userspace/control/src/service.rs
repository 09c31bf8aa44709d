//! The tasks that serve a host. Each is needed: where one ends, for whatever reason, the host is served no more.

use std::convert::Infallible;
use std::future::Future;

use tokio::task::{JoinError, JoinSet};

use crate::lease::Lost;

/// Runs tasks until it is dropped.
#[derive(Debug, Default)]
pub struct Service {
    tasks: JoinSet<Lost>,
}

/// Why a host is served no more.
#[derive(Debug)]
pub enum End {
    /// Its lease is another host's.
    Lost(Lost),
    /// A task failed: a bug.
    Failed(JoinError),
}

impl Service {
    /// Runs a task that has no end.
    pub fn run(&mut self, task: impl Future<Output = Infallible> + Send + 'static) {
        self.tasks.spawn(async move { match task.await {} });
    }

    /// Runs the task that holds the lease.
    pub fn hold(&mut self, task: impl Future<Output = Lost> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Waits until a task ends.
    pub async fn end(&mut self) -> End {
        match self.tasks.join_next().await {
            Some(Ok(lost)) => End::Lost(lost),
            Some(Err(error)) => End::Failed(error),
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::{End, Service};

    #[tokio::test]
    async fn the_end_of_any_task_is_told() {
        let mut service = Service::default();
        service.run(pending());
        service.run(async { panic!("a bug") });
        assert!(matches!(service.end().await, End::Failed(error) if error.is_panic()));
    }
}
