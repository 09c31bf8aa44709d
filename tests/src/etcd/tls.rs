//! Certificates for etcd and its clients, of an authority made for the occasion.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

use super::Encryption;

/// PEM files in a directory.
#[derive(Debug)]
pub(super) struct Tls {
    directory: PathBuf,
    address: Ipv4Addr,
    is_mutual: bool,
}

impl Tls {
    /// Issues what the server at `address` and its clients need; nothing for plaintext.
    pub(super) fn issue(encryption: Encryption, directory: &Path, address: Ipv4Addr) -> Result<Option<Self>> {
        if encryption == Encryption::None {
            return Ok(None);
        }
        let is_mutual = encryption == Encryption::Mutual;
        let tls = Self { directory: directory.to_owned(), address, is_mutual };
        tls.renew()?;
        Ok(Some(tls))
    }

    /// Issues all of it again, by a new authority.
    pub(super) fn renew(&self) -> Result<()> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        fs::write(self.path("ca"), authority.pem())?;
        self.issue_one(&authority, "server", vec![SanType::IpAddress(self.address.into())])?;
        self.issue_one(&authority, "client", Vec::new())
    }

    fn issue_one(
        &self,
        authority: &CertifiedIssuer<'_, KeyPair>,
        name: &str,
        addresses: Vec<SanType>,
    ) -> Result<()> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = addresses;
        let certificate = params.signed_by(&key, authority)?;
        fs::write(self.path(name), certificate.pem())?;
        fs::write(self.path(&format!("{name}-key")), key.serialize_pem())?;
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.pem"))
    }

    /// Flags of etcd.
    pub(super) fn server_flags(&self) -> Vec<String> {
        let mut flags = vec![self.flag("cert-file", "server"), self.flag("key-file", "server-key")];
        if self.is_mutual {
            flags.extend([self.flag("trusted-ca-file", "ca"), "--client-cert-auth".to_owned()]);
        }
        flags
    }

    /// Flags of a program that connects, by its names for authority, certificate and key.
    pub(super) fn client_flags(&self, [ca, cert, key]: [&str; 3]) -> Vec<String> {
        let mut flags = vec![self.flag(ca, "ca")];
        if self.is_mutual {
            flags.extend([self.flag(cert, "client"), self.flag(key, "client-key")]);
        }
        flags
    }

    fn flag(&self, flag: &str, file: &str) -> String {
        format!("--{flag}={}", self.path(file).display())
    }
}
