//! A client of HTTP that says just what it is told to.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

/// How long an answer may take on a busy machine.
const LIMIT: Duration = Duration::from_mins(2);

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In small letters.
    pub head: String,
    pub body: String,
}

/// Asks at a port of TCP.
#[track_caller]
pub fn tcp(address: &str, request: &str) -> Answer {
    let address: SocketAddr = address.parse().expect("an address");
    let stream = TcpStream::connect_timeout(&address, LIMIT).expect("connect");
    stream.set_read_timeout(Some(LIMIT)).expect("set a limit");
    ask(stream, request)
}

/// Asks at a socket of the file system.
#[track_caller]
pub fn unix(path: &Path, request: &str) -> Answer {
    let stream = UnixStream::connect(path).expect("connect");
    stream.set_read_timeout(Some(LIMIT)).expect("set a limit");
    ask(stream, request)
}

/// The body of a page, which must be there.
#[track_caller]
pub fn page(address: &str, path: &str) -> String {
    let answer = tcp(address, &format!("GET {path}"));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body
}

/// `request` is a method and a path, and perhaps lines of the head; version 1.0, so that the answer ends with the connection.
#[track_caller]
fn ask(mut stream: impl Read + Write, request: &str) -> Answer {
    let (line, rest) = request.split_once('\n').unwrap_or((request, ""));
    write!(stream, "{line} HTTP/1.0\r\n{rest}\r\n\r\n").expect("ask");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("an answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Answer {
        status: status.expect("a status"),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
