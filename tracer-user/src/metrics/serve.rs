//! Answers HTTP requests, whoever asks: few connections, small requests, short times.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use super::encode;
use super::exchange::Exchange;
use crate::probe::boot_ns;

/// Connections at a time. One more ends the oldest: who holds connections open must not keep a Prometheus out.
const MOST_CONNECTIONS: usize = 16;
/// Longest that a connection lasts, whatever the other side does.
const CONNECTION: Duration = Duration::from_secs(10);
/// Longest that a request's head may take to come.
const HEAD: Duration = Duration::from_secs(3);
/// Largest head of a request, bytes. The least that hyper allows.
const LARGEST_HEAD: usize = 8 << 10;
/// Header lines of a request at most.
const MOST_HEADERS: usize = 64;
/// After a connection that cannot be accepted: descriptors may have run out.
const PAUSE: Duration = Duration::from_millis(200);
/// Memory is locked, so the stack counts whole.
const STACK: usize = 512 << 10;
const PLAIN: &str = "text/plain; charset=utf-8";

/// Listens until it is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Answers at `address` from now on.
    ///
    /// # Errors
    /// When the address cannot be had, or no thread can be started.
    pub fn start(address: SocketAddr, exchange: Arc<Exchange>) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = Builder::new()
            .name("metrics".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = listen(listener, exchange) => {}
                        _ = stopped => {}
                    }
                });
                // Connections end with the runtime.
            })?;
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been told by then.
            let _ = thread.join();
        }
    }
}

async fn listen(listener: TcpListener, exchange: Arc<Exchange>) {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return log::error!("metrics: {error}"),
    };
    let mut connections: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            sleep(PAUSE).await;
            continue;
        };
        connections.retain(|connection| !connection.is_finished());
        if connections.len() >= MOST_CONNECTIONS
            && let Some(oldest) = connections.pop_front()
        {
            oldest.abort();
        }
        let attending = tokio::spawn(attend(stream, Arc::clone(&exchange)));
        connections.push_back(attending.abort_handle());
    }
}

async fn attend(stream: TcpStream, exchange: Arc<Exchange>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let exchange = Arc::clone(&exchange);
        async move { Ok::<_, Infallible>(answer(request.method(), request.uri().path(), &exchange).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(LARGEST_HEAD)
        .max_headers(MOST_HEADERS)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    // What the other side does wrong is its own business.
    let _ = timeout(CONNECTION, connection).await;
}

async fn answer(method: &Method, path: &str, exchange: &Exchange) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => metrics(exchange).await,
        "/healthz" => match exchange.stuck(boot_ns()) {
            None => plain(StatusCode::OK, "ok\n".to_owned()),
            Some(since) => {
                let text = format!("the tracer has not looked for {} s\n", since / 1_000_000_000);
                plain(StatusCode::SERVICE_UNAVAILABLE, text)
            }
        },
        "/" => plain(
            StatusCode::OK,
            concat!("headroom ", env!("CARGO_PKG_VERSION"), "\n/metrics\n/healthz\n").to_owned(),
        ),
        _ => plain(StatusCode::NOT_FOUND, "there are /metrics and /healthz\n".to_owned()),
    }
}

async fn metrics(exchange: &Exchange) -> Response<Full<Bytes>> {
    let Some(figures) = exchange.ask().await else {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "the tracer does not answer\n".to_owned(),
        );
    };
    match encode::text(&figures) {
        Ok(text) => response(StatusCode::OK, encode::CONTENT_TYPE, text),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
    }
}

fn plain(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    response(status, PLAIN, text)
}

fn response(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    for (name, value) in [
        (CONTENT_TYPE, kind),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}
