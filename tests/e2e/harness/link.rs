//! edge: a road between two processes on which anything can go wrong: what travels is held up, kept back one way or both, or the
//! connections are reset. Several roads may have one weather, so that a process is cut off from all its servers at once.
//!
//! What is kept back is delivered once the road is open again, as TCP would: a partition loses nothing but time and patience.

use shared::task::{self, Guarded};
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Bytes that travel at once.
const CHUNK: usize = 64 * 1024;

/// How it is on the road.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Road {
    #[default]
    Open,
    /// Every piece takes this much longer, each way.
    Slow(Duration),
    /// Nothing arrives: a partition. Connections stay, and new ones are taken.
    Silent,
    /// What is sent arrives, and no answer comes back.
    OneWay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    There,
    Back,
}

impl Road {
    const fn carries(self, way: Way) -> bool {
        !matches!((self, way), (Self::Silent, _) | (Self::OneWay, Way::Back))
    }

    const fn delay(self) -> Duration {
        match self {
            Self::Slow(delay) => delay,
            Self::Open | Self::Silent | Self::OneWay => Duration::ZERO,
        }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    road: Road,
    /// How often everything was reset: a connection ends when this is no longer what it was at its beginning.
    resets: u64,
}

/// What happens on the roads that share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weather(watch::Sender<State>);

impl Weather {
    pub(crate) fn set(&self, road: Road) {
        self.0.send_modify(|state| state.road = road);
    }

    /// Breaks every connection (RST). New ones go as the road is.
    pub(crate) fn reset(&self) {
        self.0.send_modify(|state| state.resets += 1);
    }
}

/// A road to a port of this machine. Dropping it ends its connections.
pub(crate) struct Link {
    port: u16,
    _accepting: Guarded,
}

impl Link {
    pub(crate) async fn start(to: u16, weather: &Weather) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        Self { port, _accepting: task::spawn_guarded("link", accept(listener, to, weather.0.subscribe())) }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }
}

async fn accept(listener: TcpListener, to: u16, weather: watch::Receiver<State>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Ok((from, _)) = listener.accept() => { connections.spawn(carry(from, to, weather.clone())); }
            Some(_) = connections.join_next() => {}
            else => {}
        }
    }
}

async fn carry(mut from: TcpStream, to: u16, mut weather: watch::Receiver<State>) {
    let born = weather.borrow().resets;
    let Ok(mut server) = TcpStream::connect(("127.0.0.1", to)).await else { return };
    if from.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return; // Closed already.
    }
    let is_reset = {
        let ((from_read, from_write), (server_read, server_write)) = (from.split(), server.split());
        let there = pump(from_read, server_write, Way::There, weather.clone());
        let back = pump(server_read, from_write, Way::Back, weather.clone());
        tokio::select! {
            _ = async { tokio::try_join!(there, back) } => false,
            reset = weather.wait_for(|now| now.resets != born) => reset.is_ok(),
        }
    };
    if is_reset {
        let _ = from.set_zero_linger().and_then(|()| server.set_zero_linger());
    }
}

async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, way: Way, mut weather: watch::Receiver<State>) -> io::Result<()> {
    let mut bytes = vec![0; CHUNK];
    loop {
        let count = from.read(&mut bytes).await?;
        let delay = weather.wait_for(|now| now.road.carries(way)).await.map_err(io::Error::other)?.road.delay();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&bytes[..count]).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    /// Long enough for a byte to make the way on a busy machine many times.
    const MOMENT: Duration = Duration::from_millis(200);

    /// A connection over a link, and the server's end of it.
    async fn connected(weather: &Weather) -> (Link, TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let link = Link::start(listener.local_addr().unwrap().port(), weather).await;
        let client = TcpStream::connect(("127.0.0.1", link.port())).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        (link, client, server)
    }

    async fn says(from: &mut TcpStream, to: &mut TcpStream, byte: u8) -> bool {
        from.write_u8(byte).await.unwrap();
        timeout(MOMENT, to.read_u8()).await.is_ok_and(|read| read.unwrap() == byte)
    }

    #[tokio::test]
    async fn what_a_partition_kept_back_arrives_when_it_is_over() {
        let weather = Weather::default();
        let (_link, mut client, mut server) = connected(&weather).await;
        assert!(says(&mut client, &mut server, 1).await && says(&mut server, &mut client, 2).await);
        weather.set(Road::Silent);
        assert!(!says(&mut client, &mut server, 3).await && !says(&mut server, &mut client, 4).await);
        weather.set(Road::Open);
        assert_eq!((server.read_u8().await.unwrap(), client.read_u8().await.unwrap()), (3, 4));
    }

    #[tokio::test]
    async fn a_one_way_road_carries_no_answer() {
        let weather = Weather::default();
        let (_link, mut client, mut server) = connected(&weather).await;
        weather.set(Road::OneWay);
        assert!(says(&mut client, &mut server, 1).await);
        assert!(!says(&mut server, &mut client, 2).await);
    }

    #[tokio::test]
    async fn a_slow_road_takes_its_time() {
        let weather = Weather::default();
        let (_link, mut client, mut server) = connected(&weather).await;
        weather.set(Road::Slow(MOMENT));
        let began = loadtest::clock::Stopwatch::start();
        client.write_u8(1).await.unwrap();
        server.read_u8().await.unwrap();
        assert!(began.elapsed() >= MOMENT);
    }

    #[tokio::test]
    async fn a_reset_breaks_what_is_connected_and_nothing_else() {
        let weather = Weather::default();
        let (link, mut client, _server) = connected(&weather).await;
        weather.reset();
        assert_eq!(client.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        assert!(TcpStream::connect(("127.0.0.1", link.port())).await.is_ok());
    }
}
