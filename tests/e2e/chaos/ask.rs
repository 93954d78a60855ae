//! edge: one request of a caller's, and what came back.

use loadtest::client::{Answer, Client, ClientError, Events, Opened};

pub(super) struct Ask<'a> {
    path: &'a str,
    /// Empty: a GET.
    body: String,
    headers: Vec<(&'a str, &'a str)>,
    is_stream: bool,
}

pub(super) enum Got {
    Whole(Answer),
    Stream(Events),
}

impl<'a> Ask<'a> {
    pub(super) const fn get(path: &'a str) -> Self {
        Self { path, body: String::new(), headers: Vec::new(), is_stream: false }
    }

    pub(super) const fn post(path: &'a str, body: String) -> Self {
        Self { path, body, headers: Vec::new(), is_stream: false }
    }

    pub(super) fn with(mut self, headers: &[(&'a str, &'a str)]) -> Self {
        self.headers.extend(headers);
        self
    }

    pub(super) const fn streamed(mut self, is_stream: bool) -> Self {
        self.is_stream = is_stream;
        self
    }

    /// The answer, or the beginning of a stream.
    ///
    /// # Errors
    /// No connection, or one that broke.
    pub(super) async fn send(&self, to: &Client) -> Result<Got, ClientError> {
        if !self.is_stream {
            return self.whole(to).await.map(Got::Whole);
        }
        Ok(match to.stream(self.path, self.body.clone()).await? {
            Opened::Events(events) => Got::Stream(events),
            Opened::Refused(answer) => Got::Whole(answer),
        })
    }

    /// The answer of a request that asks for no stream.
    ///
    /// # Errors
    /// As for [`Ask::send`].
    pub(super) async fn whole(&self, to: &Client) -> Result<Answer, ClientError> {
        if self.body.is_empty() { to.get(self.path).await } else { to.post_with(self.path, &self.headers, self.body.clone()).await }
    }
}
