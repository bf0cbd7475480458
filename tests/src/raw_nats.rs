//! A NATS publisher that writes whatever bytes it is told to: what a client library would refuse to send, a server takes
//! and hands on.

use std::net::Ipv4Addr;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};
use tokio::net::TcpStream;

/// A connection without credentials, to a server of the loopback.
#[derive(Debug)]
pub struct RawNats {
    stream: BufStream<TcpStream>,
}

impl RawNats {
    /// Connects to a port of the loopback.
    pub async fn connect(port: u16) -> Result<Self> {
        let mut stream = BufStream::new(TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?);
        stream
            .write_all(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"lang\":\"raw\"}\r\n")
            .await?;
        let mut raw = Self { stream };
        raw.flush().await?;
        Ok(raw)
    }

    /// One message; `block` is its whole header block, and none means a message without headers.
    pub async fn publish(&mut self, subject: &[u8], block: Option<&[u8]>, body: &[u8]) -> Result<()> {
        let command: &[u8] = if block.is_some() { b"HPUB " } else { b"PUB " };
        self.stream.write_all(command).await?;
        self.stream.write_all(subject).await?;
        let lengths = match block {
            Some(block) => format!(" {} {}\r\n", block.len(), block.len() + body.len()),
            None => format!(" {}\r\n", body.len()),
        };
        self.stream.write_all(lengths.as_bytes()).await?;
        self.stream.write_all(block.unwrap_or_default()).await?;
        self.stream.write_all(body).await?;
        self.stream.write_all(b"\r\n").await?;
        Ok(())
    }

    /// Returns once the server has done all it was told.
    pub async fn flush(&mut self) -> Result<()> {
        self.stream.write_all(b"PING\r\n").await?;
        self.stream.flush().await?;
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.stream.read_until(b'\n', &mut line).await?;
            anyhow::ensure!(read > 0, "the server ended the connection");
            if line == b"PONG\r\n" {
                return Ok(());
            }
            let said = std::str::from_utf8(&line).context("what the server says")?;
            anyhow::ensure!(!said.starts_with("-ERR"), "the server says: {said}");
        }
    }
}
