//! The endpoint: HTTP, of which it knows GET and HEAD of one page.
//!
//! It has a thread and a runtime of its own, so that neither a scrape nor a client that reads slowly holds up who looks after
//! ports. One scrape is made at a time.

use std::{
    convert::Infallible,
    io,
    rc::Rc,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::{Semaphore, oneshot},
    task::LocalSet,
};

use super::{
    Address, Format, Paths, negotiation,
    socket::{Listener, Listening},
};
use crate::{
    error::{Context as _, Result},
    state::State,
};

/// The one page.
const PAGE: &str = "/metrics";
/// Clients at a time; further ones wait.
const CLIENTS: usize = 32;
/// Until a client has said what it wants.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);
/// Until it has been served. A client that needs longer has given up: Prometheus waits 10 s unless it is told otherwise.
const CLIENT_LIMIT: Duration = Duration::from_secs(20);
/// After an error of the socket, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// An endpoint that gives the metrics of the network namespace that it was started in, until it is dropped.
pub struct Server {
    address: Address,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What is served.
struct Page {
    state: State,
    paths: Paths,
    /// Of whoever reads: what is read for two at once would take twice as long for both.
    turn: Semaphore,
}

impl Server {
    /// Listens there, and answers from now on, in the calling thread's network namespace. Needs a tokio runtime that runs on
    /// the thread.
    pub async fn start(state: &State, address: &Address, paths: Paths) -> Result<Self> {
        let listening = Listening::at(address).await?;
        let address = listening.address().at(address, "look at the socket")?;
        let page = Page {
            state: state.clone(),
            paths,
            turn: Semaphore::new(1),
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.at("metrics", "start a runtime")?;
        let (end, ended) = oneshot::channel();
        // It inherits the network namespace of this one.
        let serve = move || {
            let serve = async {
                match listening.listen() {
                    Ok((listener, _file)) => serve(listener, page, ended).await,
                    Err(error) => log::warn!("metrics: listen: {error}"),
                }
            };
            LocalSet::new().block_on(&runtime, serve);
        };
        let thread = thread::Builder::new().name("metrics".into()).spawn(serve);
        Ok(Self {
            address,
            end: Some(end),
            thread: Some(thread.at("metrics", "start a thread")?),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // What it is reading it reads to the end.
            let _ = thread.join();
        }
    }
}

/// Answers until `ended` is.
async fn serve(listener: Listener, page: Page, mut ended: oneshot::Receiver<()>) {
    let page = Rc::new(page);
    let clients = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let next = async {
            let place = clients.clone().acquire_owned().await;
            accept(&listener, &page).await.map(|client| (client, place))
        };
        let accepted = tokio::select! {
            _ = &mut ended => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((client, place)) => {
                tokio::task::spawn_local(async move {
                    client.await;
                    drop(place);
                });
            }
            Err(error) => {
                log::warn!("metrics: accept a client: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// The next client, to be served.
async fn accept(
    listener: &Listener,
    page: &Rc<Page>,
) -> io::Result<std::pin::Pin<Box<dyn Future<Output = ()>>>> {
    Ok(match listener {
        Listener::Tcp(listener) => Box::pin(serve_client(listener.accept().await?.0, page.clone())),
        Listener::Unix(listener) => Box::pin(serve_client(listener.accept().await?.0, page.clone())),
    })
}

async fn serve_client(client: impl AsyncRead + AsyncWrite + Unpin + 'static, page: Rc<Page>) {
    let answer = service_fn(|request: Request<Incoming>| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(page.answer(&request).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_LIMIT)
        // One that scrapes four times a minute does not keep a place meanwhile.
        .keep_alive(false)
        .serve_connection(TokioIo::new(client), answer);
    match tokio::time::timeout(CLIENT_LIMIT, served).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::debug!("metrics: a client: {error}"),
        Err(_) => log::debug!("metrics: a client took longer than {CLIENT_LIMIT:?}"),
    }
}

impl Page {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() != PAGE {
            return plain(StatusCode::NOT_FOUND, format!("metrics are at {PAGE}\n"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n".into());
            refused
                .headers_mut()
                .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        let accept = request.headers().get(ACCEPT);
        let format = negotiation::format(accept.and_then(|accept| accept.to_str().ok()));
        let turn = self.turn.acquire().await;
        let read = super::read(&self.state, None, self.paths).await;
        drop(turn);
        match read {
            Ok(families) => text(StatusCode::OK, format, families.render(format)),
            Err(error) => {
                log::warn!("metrics: {error}");
                plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n"))
            }
        }
    }
}

fn plain(status: StatusCode, message: String) -> Response<Full<Bytes>> {
    text(status, Format::Prometheus, message)
}

fn text(status: StatusCode, format: Format, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let kind = HeaderValue::from_static(format.content_type());
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
