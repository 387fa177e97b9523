//! There is one `run` in a network namespace: the one that has a socket of a name that goes with it. Who asks there is told
//! what it does.

use std::{fs, io, os::unix::fs::MetadataExt as _, time::Duration};

use nix::unistd::geteuid;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{UnixListener, UnixStream},
    time::timeout,
};

use super::status::Status;
use crate::{
    error::{Context as _, Error, Result},
    state::State,
};

/// How long somebody who asks may take to read the answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long `run` may take to answer: attaching hundreds of ports takes seconds, and it does one thing at a time.
const ANSWER: Duration = Duration::from_secs(30);

/// More bytes than it has to say.
const LONGEST_ANSWER: u64 = 16 << 20;

/// What says that this process is the one, for as long as it is there.
pub struct Presence(UnixListener);

/// A name in the network namespace (abstract, unix(7)), which goes with the process that has it.
fn name(state: &State) -> String {
    format!("\0tapbridge-run:{}", state.root().display())
}

impl Presence {
    /// Refuses if another one is there: two would take each other's changes for an administrator's.
    pub async fn claim(state: &State) -> Result<Self> {
        match UnixListener::bind(name(state)) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Error::Running {
                path: state.root().to_owned(),
                process: match connect(state).await {
                    Ok(Some(stream)) => describe(&stream),
                    Err(error @ Error::Impostor { .. }) => return Err(error),
                    _ => "another process".into(),
                },
            }),
            bound => bound
                .map(Self)
                .at(state.root().display(), "make sure that no other 'run' is at work"),
        }
    }

    /// Somebody who asks. That one can't be served is no reason to end.
    pub(super) async fn asked(&self) -> UnixStream {
        loop {
            match self.0.accept().await {
                Ok((stream, _)) => return stream,
                // Without file descriptors it would be asked again at once.
                Err(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
    }
}

/// Tells whoever asked, and waits for no one.
pub(super) fn answer(mut stream: UnixStream, status: &Status) {
    let Ok(text) = serde_json::to_vec(status) else {
        return;
    };
    tokio::spawn(async move {
        let _ = timeout(PATIENCE, stream.write_all(&text)).await;
    });
}

/// None if nobody is there. Any process of the network namespace can have the name: only that of somebody who could change
/// what is attached is believed.
async fn connect(state: &State) -> Result<Option<UnixStream>> {
    let stream = match UnixStream::connect(name(state)).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(None),
        connected => connected.at("tapbridge run", "ask")?,
    };
    // Of whoever listens, when it began to (unix(7)).
    let user = stream.peer_cred().at("tapbridge run", "ask who it is")?.uid();
    let owner = fs::metadata(state.root()).map(|folder| folder.uid()).ok();
    if user == 0 || user == geteuid().as_raw() || Some(user) == owner {
        return Ok(Some(stream));
    }
    Err(Error::Impostor {
        process: describe(&stream),
        user,
    })
}

/// Whether somebody looks after the ports of the calling thread's network namespace.
pub async fn is_running(state: &State) -> bool {
    // One that is busy has a full queue perhaps, and is there.
    !matches!(connect(state).await, Ok(None) | Err(Error::Impostor { .. }))
}

/// What `run` does in the calling thread's network namespace; none if there is none.
pub async fn status(state: &State) -> Result<Option<Status>> {
    let Some(stream) = connect(state).await? else {
        return Ok(None);
    };
    let process = describe(&stream);
    let mut stream = stream.take(LONGEST_ANSWER);
    let mut text = Vec::new();
    match timeout(ANSWER, stream.read_to_end(&mut text)).await {
        Err(_) => Err(Error::NoAnswer {
            process,
            seconds: ANSWER.as_secs(),
        }),
        // It has ended meanwhile.
        Ok(Ok(0)) => Ok(None),
        Ok(read) => {
            read.at("tapbridge run", "ask")?;
            serde_json::from_slice(&text).map(Some).at(process, "understand")
        }
    }
}

fn describe(stream: &UnixStream) -> String {
    let id = stream.peer_cred().ok().and_then(|who| who.pid());
    id.map_or_else(|| "another process".into(), |id| format!("process {id}"))
}
