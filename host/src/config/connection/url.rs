//! The form of a connection string as a URL: `postgres://user:password@host:port,host:port/database?parameter=value&…`.

use super::string::{ConnectionString, ConnectionStringError, wrong};

/// The schemes.
pub(super) const SCHEMES: [&str; 2] = ["postgres://", "postgresql://"];

/// Reads the text after the scheme. Each part is optional, and is decoded separately.
pub(super) fn read(text: &str) -> Result<ConnectionString, ConnectionStringError> {
    let mut read = ConnectionString::default();
    let mut set = |name: &str, value: String| if value.is_empty() { Ok(()) } else { read.set(0, name, value) };
    // A password may contain anything except @ and /, so these are searched for first.
    let end = text.find(['@', '/']).filter(|at| text[*at..].starts_with('@'));
    let rest = match end {
        Some(at) => {
            let (user, password) = text[..at].split_once(':').unwrap_or((&text[..at], ""));
            set("user", decode(user)?)?;
            set("password", decode(password)?)?;
            &text[at + 1..]
        }
        None => text,
    };
    let (servers, rest) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if servers.contains('@') || path.contains('@') {
        return Err(wrong(
            "there is an @ where none can be; in a user's name or a password, write @ as %40 and / as %2F",
        ));
    }
    let (hosts, ports) = read_servers(servers)?;
    set("host", hosts)?;
    set("port", ports)?;
    set("dbname", decode(path.strip_prefix('/').unwrap_or(path))?)?;
    for (index, pair) in query.split('&').enumerate().filter(|(_, pair)| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(wrong(format!("there is no = in its parameter number {}", index + 1)));
        };
        let (name, value) = (decode(name)?, decode(value)?);
        // The spelling of other drivers, which libpq accepts too.
        let (name, value) = match (name.as_str(), value.as_str()) {
            ("ssl", "true") => ("sslmode", "require"),
            (name, value) => (name, value),
        };
        read.set(index + 1, name, value.to_owned())?;
    }
    Ok(read)
}

/// The hosts and the ports, each as a list with commas: empty if none is named, otherwise one entry for each host.
fn read_servers(text: &str) -> Result<(String, String), ConnectionStringError> {
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for server in text.split(',') {
        let (host, port) = match server.strip_prefix('[') {
            Some(inner) => {
                let (host, behind) =
                    inner.split_once(']').ok_or_else(|| wrong("the [ before an IPv6 address has no ] behind it"))?;
                if host.is_empty() || !(behind.is_empty() || behind.starts_with(':')) {
                    return Err(wrong("an IPv6 address has to stand in [ and ], with nothing but :port behind"));
                }
                (host, behind.strip_prefix(':').unwrap_or(behind))
            }
            None => server.split_once(':').unwrap_or((server, "")),
        };
        hosts.push(decode(host)?);
        ports.push(decode(port)?);
    }
    // Alone, a missing host or port is an empty text; with others, it keeps its place between the commas.
    Ok((hosts.join(","), ports.join(",")))
}

/// Decodes %XX.
fn decode(text: &str) -> Result<String, ConnectionStringError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| behind.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        let byte = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        match byte {
            None => return Err(wrong("a % has no two hexadecimal digits behind it; write % itself as %25")),
            Some(0) => return Err(wrong("%00 cannot be in it")),
            Some(byte) => bytes.push(byte),
        }
        rest = &behind[2..];
    }
    String::from_utf8(bytes).map_err(|_| wrong("the text decoded from %XX is not UTF-8"))
}
