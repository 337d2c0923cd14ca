//! The lab's control socket: one line in, one line of JSON out. Tests and curious people ask it what is registered and
//! allocated, and tell servers to misbehave.

use std::path::Path;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::driver::{Question, Questions};

/// Listens at `path`; `stop` resolves the receiver.
///
/// # Errors
///
/// A sentence that names the path.
pub fn listen(path: &Path, questions: Questions) -> Result<(AbortHandle, mpsc::Receiver<()>), String> {
    let listener = UnixListener::bind(path).map_err(|error| format!("cannot listen on {}: {error}", path.display()))?;
    let (stop, stopped) = mpsc::channel(1);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, questions.clone(), stop.clone()));
        }
    });
    Ok((task.abort_handle(), stopped))
}

async fn converse(stream: UnixStream, questions: Questions, stop: mpsc::Sender<()>) {
    let (reader, mut writer) = stream.into_split();
    let mut lines = BufReader::new(reader).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let reply = answer(line.trim(), &questions, &stop).await;
        if writer.write_all(format!("{reply}\n").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn answer(line: &str, questions: &Questions, stop: &mpsc::Sender<()>) -> serde_json::Value {
    let gone = || serde_json::json!({ "error": "the lab is stopping" });
    match line {
        "list" => {
            let (reply, held) = oneshot::channel();
            let _ = questions.send(Question::List(reply)).await;
            held.await.unwrap_or_else(|_| gone())
        }
        "help" => {
            let (reply, faults) = oneshot::channel();
            let _ = questions.send(Question::Help(reply)).await;
            let faults = faults.await.unwrap_or_default();
            serde_json::json!({ "commands": ["list", "help", "stop"], "faults": faults })
        }
        "stop" => {
            let _ = stop.try_send(());
            serde_json::json!({ "ok": true })
        }
        fault => {
            let (reply, outcome) = oneshot::channel();
            let _ = questions.send(Question::Fault(fault.to_owned(), reply)).await;
            match outcome.await {
                Ok(Ok(())) => serde_json::json!({ "ok": true }),
                Ok(Err(error)) => serde_json::json!({ "error": error }),
                Err(_) => gone(),
            }
        }
    }
}
