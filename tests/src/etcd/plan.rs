//! What an etcd is like.

/// One member in plaintext, which lets everybody in, unless said otherwise.
#[derive(Clone, Debug, Default)]
pub struct EtcdPlan {
    /// Whether there are three members, each on a host of its own.
    pub is_cluster: bool,
    /// How it proves who it is, and who its clients are.
    pub encryption: Encryption,
    /// Whether only a user is let in who may write below the network's prefix, and root.
    pub is_guarded: bool,
    /// Whether the daemons reach it by a proxy.
    pub is_proxied: bool,
    /// More flags of etcd.
    pub flags: Vec<String>,
}

/// What is asked of the two ends of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encryption {
    /// Nothing: plaintext.
    #[default]
    None,
    /// A certificate of the server.
    Server,
    /// Certificates of both.
    Mutual,
}
