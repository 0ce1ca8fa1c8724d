//! One connection: its requests, and a watchdog that closes it when it does nothing for too long.
//!
//! Each phase has a limit of its own (`activity`), so that neither slow nor silent clients hold a connection for ever.

mod activity;
mod body;
mod io;

use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{header, HeaderName, HeaderValue, Request, Response, Version};
use axum::Router;
use contracts::settings;
use hyper::body::Incoming;
use hyper::service::{service_fn, Service};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::Watcher;
use hyper_util::service::TowerToHyperService;
use service::Supervisor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use self::activity::{Activity, Limits};
use self::body::{RequestBody, ResponseBody, Running};
use self::io::{is_read_closed, ConnectionIo};
use crate::http::tls::Certificate;
use crate::request_id::{self, REQUEST_ID};

/// How often the watchdog looks.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client may take almost nothing of what waits for it.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Size limit of a request's head.
const MAX_HEAD_BYTES: u32 = 64 * 1024;
/// Requests of one connection that HTTP/2 may have in progress at once.
const MAX_STREAMS: u32 = 128;
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// What all connections share.
pub(super) struct Connections {
    router: Router,
    /// HTTP/1.1, and HTTP/2 for clients that begin with it.
    http: auto::Builder<TokioExecutor>,
    /// Without one, connections are not encrypted.
    certificate: Option<Arc<Certificate>>,
    supervisor: Supervisor,
    limits: Limits,
    /// The announcement of the idle timeout.
    keep_alive: HeaderValue,
    /// One permit for each connection.
    slots: Arc<Semaphore>,
}

fn http() -> auto::Builder<TokioExecutor> {
    let mut http = auto::Builder::new(TokioExecutor::new());
    http.http1()
        .timer(TokioTimer::new())
        // The watchdog knows the difference between a slow head and an idle connection.
        .header_read_timeout(None)
        // A client may close its side once it has sent its request.
        .half_close(true)
        .max_buf_size(MAX_HEAD_BYTES as usize);
    http.http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES);
    http
}

impl Connections {
    pub fn new(
        router: Router,
        certificate: Option<Arc<Certificate>>,
        settings: &settings::Reflex,
        supervisor: Supervisor,
        slots: Arc<Semaphore>,
    ) -> Self {
        let keep_alive = format!("timeout={}", settings.idle_timeout_s);
        Self {
            router,
            http: http(),
            certificate,
            supervisor,
            limits: Limits {
                head: Duration::from_secs(settings.header_timeout_s),
                idle: Duration::from_secs(settings.idle_timeout_s),
                write: WRITE_TIMEOUT,
            },
            keep_alive: HeaderValue::try_from(keep_alive)
                .unwrap_or_else(|_| HeaderValue::from_static("timeout=1")),
            slots,
        }
    }

    /// Serves one connection until it ends, is overdue, or `watcher` has it shut down gracefully.
    pub async fn serve(self: Arc<Self>, socket: TcpStream, watcher: Watcher) {
        let socket = Arc::new(socket);
        let activity = Arc::new(Activity::new(Instant::now()));
        let streaming = Arc::new(AtomicBool::new(false));
        let io = ConnectionIo {
            socket: Arc::clone(&socket),
            activity: Arc::clone(&activity),
        };
        let service = self.service(Arc::clone(&activity), Arc::clone(&streaming));
        let serving = async {
            let Some(certificate) = &self.certificate else {
                return self.serve_http(io, service, watcher).await;
            };
            let acceptor = TlsAcceptor::from(certificate.current());
            match acceptor.accept(io).await {
                Ok(stream) => {
                    activity.handshake_ended(Instant::now());
                    self.serve_http(stream, service, watcher).await;
                }
                Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
            }
        };
        tokio::select! {
            () = serving => {}
            () = self.watch(&socket, &activity, &streaming) => {}
        }
    }

    async fn serve_http<I, S, F>(&self, io: I, service: S, watcher: Watcher)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        S: Service<
            Request<Incoming>,
            Response = Response<ResponseBody>,
            Error = Infallible,
            Future = F,
        >,
        F: Future<Output = Result<Response<ResponseBody>, Infallible>> + Send + 'static,
    {
        let connection = self.http.serve_connection(TokioIo::new(io), service);
        if let Err(error) = watcher.watch(connection).await {
            tracing::debug!(%error, "a connection ended with an error");
        }
    }

    /// Handles the requests of one connection.
    fn service(
        &self,
        activity: Arc<Activity>,
        streaming: Arc<AtomicBool>,
    ) -> impl Service<
        Request<Incoming>,
        Response = Response<ResponseBody>,
        Error = Infallible,
        Future = impl Future<Output = Result<Response<ResponseBody>, Infallible>> + Send,
    > {
        let router = TowerToHyperService::new(self.router.clone());
        let supervisor = self.supervisor.clone();
        let keep_alive = self.keep_alive.clone();
        service_fn(move |request: Request<Incoming>| {
            let multiplexed = request.version() == Version::HTTP_2;
            let running = Running::start(Arc::clone(&activity), multiplexed);
            let expects = request.headers().contains_key(header::EXPECT);
            let request = request.map(|body| RequestBody::new(body, expects, supervisor.clone()));
            let id = request_id::of(request.headers());
            let response = request_id::scope(id.clone(), router.call(request));
            let (streaming, keep_alive) = (Arc::clone(&streaming), keep_alive.clone());
            async move {
                let mut response = response.await?;
                let headers = response.headers_mut();
                let is_stream = headers
                    .get(header::CONTENT_TYPE)
                    .is_some_and(|value| value == "text/event-stream");
                streaming.store(is_stream, Ordering::Relaxed);
                if !multiplexed {
                    headers.insert(KEEP_ALIVE, keep_alive);
                }
                headers.insert(REQUEST_ID, id);
                Ok(response.map(|body| ResponseBody::new(body, running, multiplexed)))
            }
        })
    }

    /// Returns once the connection has to be closed.
    async fn watch(&self, socket: &TcpStream, activity: &Activity, streaming: &AtomicBool) {
        loop {
            tokio::time::sleep(WATCH_INTERVAL).await;
            let limits = if self.slots.available_permits() == 0 {
                self.limits.overloaded()
            } else {
                self.limits
            };
            if let Some(reason) = activity.overdue(Instant::now(), limits) {
                tracing::debug!(%reason, "closing a connection");
                return;
            }
            // An event stream can go on for hours, so a client that has closed its side counts as one that has left.
            if streaming.load(Ordering::Relaxed) && is_read_closed(socket) {
                tracing::debug!("the client of an event stream has left");
                return;
            }
        }
    }
}
