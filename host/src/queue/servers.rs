//! The servers that a connection names.

use std::{net::IpAddr, path::Path};

use tokio_postgres::config::{Config, Host};

/// The folders of sockets that a file of passwords calls `localhost`.
const SOCKET_FOLDERS: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// One of the servers that were named.
#[derive(Debug, Clone)]
pub(super) struct Server {
    pub(super) host: Host,
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl Server {
    pub(super) fn add_to(&self, config: &mut Config, address: Option<IpAddr>) {
        match &self.host {
            Host::Unix(folder) => config.host_path(folder),
            Host::Tcp(name) => config.host(name),
        };
        if let Some(address) = address {
            config.hostaddr(address);
        }
        config.port(self.port);
    }

    pub(super) fn name_in_passfile(&self) -> String {
        match &self.host {
            Host::Unix(folder) if SOCKET_FOLDERS.iter().any(|usual| folder == Path::new(usual)) => {
                "localhost".to_owned()
            }
            Host::Unix(folder) => show_folder(folder),
            Host::Tcp(name) => name.clone(),
        }
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            Host::Unix(folder) => write!(f, "{}:{}", show_folder(folder), self.port),
            Host::Tcp(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Host::Tcp(name) => write!(f, "{name}:{}", self.port),
        }
    }
}

/// Abstract sockets begin with a zero byte, which people write as @.
fn show_folder(folder: &Path) -> String {
    folder.to_string_lossy().replacen('\0', "@", 1)
}

/// The hosts with their addresses and ports, of which there may be one for all.
pub(super) fn servers(config: &Config) -> Result<Vec<Server>, String> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if count == 0 {
        return Err("no host is named".to_owned());
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(format!("there are {} hosts but {} addresses (hostaddr)", hosts.len(), addresses.len()));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(format!("there are {count} hosts but {} ports", ports.len()));
    }
    let server = |index: usize| {
        let address = addresses.get(index).copied();
        let host = hosts.get(index).cloned();
        let host = host.or_else(|| address.map(|address| Host::Tcp(address.to_string())))?;
        let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
        Some(Server { host, address, port })
    };
    Ok((0..count).filter_map(server).collect())
}

pub(super) fn name_of(config: &Config, servers: &[Server]) -> String {
    let database = config.get_dbname().or_else(|| config.get_user()).unwrap_or("postgres");
    let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
    let servers = if servers.is_empty() { "no host".to_owned() } else { servers.join(", ") };
    format!("database {database} at {servers}")
}
