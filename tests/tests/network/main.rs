//! Hosts, pods and traffic: the real daemon on hosts played by network namespaces.

mod reach;
