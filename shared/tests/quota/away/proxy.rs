//! A slow road to a server: what goes there is held back as long as said.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{self, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::sleep;

pub(crate) struct Proxy {
    port: u16,
    delay_ms: Arc<AtomicU64>,
    _connections: JoinSet<()>,
}

impl Proxy {
    pub(crate) async fn start(to: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let delay_ms = Arc::new(AtomicU64::new(0));
        let mut connections = JoinSet::new();
        connections.spawn(accept(listener, to, delay_ms.clone()));
        Self { port, delay_ms, _connections: connections }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn delay(&self, delay: Duration) {
        self.delay_ms.store(u64::try_from(delay.as_millis()).unwrap(), Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, to: u16, delay_ms: Arc<AtomicU64>) {
    let mut connections = JoinSet::new();
    while let Ok((from, _)) = listener.accept().await {
        let delay_ms = delay_ms.clone();
        connections.spawn(async move {
            let _ = Box::pin(carry(from, to, &delay_ms)).await;
        });
    }
}

async fn carry(from: TcpStream, to: u16, delay_ms: &AtomicU64) -> io::Result<()> {
    let (mut client_in, mut client_out) = from.into_split();
    let (mut server_in, mut server_out) = TcpStream::connect(("127.0.0.1", to)).await?.into_split();
    let there = async {
        let mut bytes = vec![0; 65_536];
        loop {
            let count = client_in.read(&mut bytes).await?;
            if count == 0 {
                return server_out.shutdown().await;
            }
            sleep(Duration::from_millis(delay_ms.load(Ordering::Relaxed))).await;
            server_out.write_all(&bytes[..count]).await?;
        }
    };
    tokio::try_join!(there, io::copy(&mut server_in, &mut client_out)).map(drop)
}
