//! What a guest says on its channel: marks, a line each.

use std::collections::BTreeMap;

/// What every mark starts with.
const MARK: &str = "@tb ";

/// The mark of a guest that has booted.
pub const READY: &str = "@tb ready";

/// A line of the protocol; `vm_image/init.sh` writes them.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mark {
    /// A line of a request's answer.
    Data { request: u32, line: String },
    /// The request's end, and its status.
    Done { request: u32, status: u8 },
    /// A job has ended, with its exit status; 128 and more stand for a signal.
    Ended { job: u32, status: u8 },
}

impl Mark {
    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.strip_prefix(MARK)?.split_once(' ')?;
        let (number, rest) = rest.split_once(' ')?;
        let number = number.parse().ok()?;
        Some(match kind {
            "data" => Self::Data {
                request: number,
                line: rest.into(),
            },
            "done" => Self::Done {
                request: number,
                status: rest.parse().ok()?,
            },
            "ended" => Self::Ended {
                job: number,
                status: rest.parse().ok()?,
            },
            _ => return None,
        })
    }
}

/// What the guest has said so far, as far as it matters.
#[derive(Debug, Default)]
pub struct Transcript {
    /// The last line, until its end has come.
    partial: Vec<u8>,
    /// The request whose answer is awaited.
    request: u32,
    answer: String,
    status: Option<u8>,
    ended: BTreeMap<u32, u8>,
}

impl Transcript {
    /// From now on only this request's answer counts: one that comes late, to a request given up, is dropped.
    pub fn expect(&mut self, request: u32) {
        self.request = request;
        self.answer.clear();
        self.status = None;
    }

    /// Takes in what the console has said since.
    pub fn feed(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.partial.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                self.take_line(&String::from_utf8_lossy(&line[..line.len() - 1]));
            }
        }
    }

    fn take_line(&mut self, line: &str) {
        match Mark::parse(line) {
            Some(Mark::Data { request, line }) if request == self.request => {
                self.answer.push_str(&line);
                self.answer.push('\n');
            }
            Some(Mark::Done { request, status }) if request == self.request => self.status = Some(status),
            Some(Mark::Ended { job, status }) => {
                self.ended.insert(job, status);
            }
            _ => {}
        }
    }

    /// What the answer has said since this was asked last.
    pub fn so_far(&mut self) -> String {
        std::mem::take(&mut self.answer)
    }

    /// The status and the text of the answer, once it is complete.
    pub fn answer(&mut self) -> Option<(u8, String)> {
        Some((self.status?, std::mem::take(&mut self.answer)))
    }

    /// How a job has ended, if it has.
    pub fn ended(&self, job: u32) -> Option<u8> {
        self.ended.get(&job).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Transcript {
        let mut transcript = Transcript::default();
        transcript.expect(2);
        transcript.feed(text.as_bytes());
        transcript
    }

    #[test]
    fn an_answer_is_its_lines_once_it_is_done() {
        let mut transcript = said("@tb data 2 one\n@tb data 2   two \n@tb data 2 \n");
        assert_eq!(transcript.answer(), None);
        transcript.feed(b"@tb done 2 7\n");
        assert_eq!(transcript.answer(), Some((7, "one\n  two \n\n".into())));
    }

    #[test]
    fn an_answer_can_be_followed() {
        let mut transcript = said("@tb data 2 one\n");
        assert_eq!(transcript.so_far(), "one\n");
        transcript.feed(b"@tb data 2 two\n@tb done 2 0\n");
        assert_eq!(transcript.so_far(), "two\n");
        assert_eq!(transcript.answer(), Some((0, String::new())));
    }

    #[test]
    fn lines_may_come_in_pieces() {
        let mut transcript = said("@tb da");
        transcript.feed(b"ta 2 wo");
        transcript.feed(b"rd\n@tb done 2 ");
        transcript.feed(b"0\n");
        assert_eq!(transcript.answer(), Some((0, "word\n".into())));
    }

    #[test]
    fn the_end_of_a_job_may_come_amid_an_answer() {
        let mut transcript = said("@tb data 2 a\n@tb ended 1 143\n@tb data 2 b\n@tb done 2 0\n");
        assert_eq!(transcript.answer(), Some((0, "a\nb\n".into())));
        assert_eq!(transcript.ended(1), Some(143));
        assert_eq!(transcript.ended(2), None);
    }

    #[test]
    fn the_answer_to_an_earlier_request_is_dropped() {
        let mut transcript = said("@tb data 1 late\n@tb done 1 0\n@tb data 2 mine\n@tb done 2 0\n");
        assert_eq!(transcript.answer(), Some((0, "mine\n".into())));
    }

    #[test]
    fn what_else_is_printed_is_no_mark() {
        let mut transcript = said(
            "[    1.0] eth0: link\r\n@tb\n@tb ready\n@tb done x 0\n@tb done 2 999\n@tb data\n\u{fffd}\n@tb wine 2 0\n",
        );
        assert_eq!(transcript.answer(), None);
    }
}
