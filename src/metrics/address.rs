//! Reads where to serve metrics.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address to listen at: `9187` and `:9187` mean loopback, so that nobody outside the machine
/// sees the metrics by accident; `0.0.0.0:9187` or `[::]:9187` has to be written out. `localhost`
/// is 127.0.0.1. Port 0 lets the system choose one.
///
/// # Errors
/// What is wrong with the text.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    let text = text.trim();
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let port = text
        .strip_prefix("localhost:")
        .or_else(|| text.strip_prefix(':'))
        .unwrap_or(text);
    // A number may have a sign in Rust, but not here.
    if port.bytes().all(|byte| byte.is_ascii_digit())
        && let Ok(port) = port.parse()
    {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    Err(format!(
        "\"{text}\" is no address; addresses look like 9187, 127.0.0.1:9187, 0.0.0.0:9187 or [::1]:9187"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_on_loopback() {
        for (text, expected) in [
            ("9187", "127.0.0.1:9187"),
            (":9187", "127.0.0.1:9187"),
            ("localhost:9187", "127.0.0.1:9187"),
            ("127.0.0.1:9187", "127.0.0.1:9187"),
            ("[::1]:9187", "[::1]:9187"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            (" 0 ", "127.0.0.1:0"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            ":",
            "65536",
            "-1",
            "+1",
            "::1",
            "::1:9187",
            "127.0.0.1",
            "host:9187",
            "9187/metrics",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
        assert_eq!(
            address("x").unwrap_err(),
            "\"x\" is no address; addresses look like 9187, 127.0.0.1:9187, 0.0.0.0:9187 or [::1]:9187"
        );
    }
}
