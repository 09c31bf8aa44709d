//! What the operator can do about what etcd, or the library that encrypts, says.

/// Every sign, a part of a text of etcd or rustls, and the remedy. The first one that fits counts.
const REMEDIES: [(&str, &str); 23] = [
    ("user name is empty", "give --etcd-username and --etcd-password"),
    ("invalid user ID or password", "check --etcd-username and --etcd-password, or --etcd-password-file"),
    ("permission denied", "grant the user's role readwrite on the prefix: etcdctl role grant-permission"),
    ("database space exceeded", "compact and defragment etcd, then: etcdctl alarm disarm"),
    ("no leader", "a majority of etcd's members must run and reach each other: etcdctl endpoint status"),
    // etcd's certificate.
    ("certificate expired", "have etcd's certificate (its --cert-file) renewed"),
    ("certificate not valid yet", "set the clock of this host, or that of who signed etcd's certificate"),
    (
        "CaUsedAsEndEntity",
        "etcd's certificate (its --cert-file) is that of an authority (CA:TRUE), which is not taken for a server's; make it \
         again from its key, and give it to --etcd-cafile, too: openssl req -x509 -key KEY -out CERT -days 3650 -subj \
         /CN=etcd -addext basicConstraints=critical,CA:FALSE -addext subjectAltName=IP:ADDRESS",
    ),
    (
        "UnsupportedCertVersion",
        "etcd's certificate (its --cert-file) is of X.509 version 1, without names of the server; sign it again with: \
         openssl x509 -req -extfile FILE, with the line subjectAltName=IP:ADDRESS in FILE",
    ),
    (
        "not valid for any names",
        "etcd's certificate (its --cert-file) names no server, and its CN does not count; make it again with: openssl req \
         -addext subjectAltName=IP:ADDRESS (openssl x509 -req: a line of -extfile)",
    ),
    (
        "not valid for name",
        "write a name or address of etcd's certificate in --etcd-endpoints, or add this one to its subjectAltName",
    ),
    (
        "extended key usage",
        "etcd's certificate (its --cert-file) is none of a server; make it again with extendedKeyUsage=serverAuth,clientAuth",
    ),
    (
        "UnsupportedSignatureAlgorithm",
        "etcd's certificate (its --cert-file) is signed with an algorithm that is not taken, such as SHA-1; sign it again \
         with: openssl x509 -req -sha256",
    ),
    (
        "BadSignature",
        "etcd's certificate is not signed by that authority, or with an RSA key of less than 2048 bits; make another key \
         with: openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out KEY",
    ),
    (
        "UnknownIssuer",
        "give the authority that signed etcd's certificate with --etcd-cafile, and etcd those in between: cat CERT \
         INTERMEDIATE >CHAIN, for its --cert-file",
    ),
    (
        "HandshakeFailure",
        "etcd's certificate has a key that is not taken, such as P-521, or its --cipher-suites leave none in common; make \
         another key with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY",
    ),
    // The client's.
    ("CertificateRequired", "give a client certificate with --etcd-certfile and --etcd-keyfile"),
    ("alert: BadCertificate", CLIENT),
    ("alert: UnknownCA", CLIENT),
    ("alert: CertificateUnknown", CLIENT),
    ("alert: CertificateExpired", CLIENT),
    (
        "KeyMismatch",
        "--etcd-keyfile is not the key of --etcd-certfile: these must print the same: openssl pkey -in KEY -pubout, openssl \
         x509 -in CERT -pubkey -noout",
    ),
    (
        "failed to parse private key",
        "the key of --etcd-keyfile is of a kind that is not taken, such as P-521 or RSA of less than 2048 bits; make another \
         one with: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out KEY",
    ),
];

/// What to do where etcd turns the client's certificate down.
pub(crate) const CLIENT: &str = "etcd does not take the client certificate of --etcd-certfile: the authority of etcd's \
                                 --trusted-ca-file must have signed it, with extendedKeyUsage=clientAuth, and it must not \
                                 have expired: openssl verify -CAfile CA CERT";

/// What helps against what this text tells.
pub(crate) fn remedy(text: &str) -> Option<&'static str> {
    REMEDIES.iter().find(|(sign, _)| text.contains(sign)).map(|(_, remedy)| *remedy)
}
