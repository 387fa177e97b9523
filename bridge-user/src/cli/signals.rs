//! Signals that ask the process to end.

use tokio::signal::unix::{SignalKind, signal};

/// Finishes what has begun even if a signal asks the process to end meanwhile: it takes milliseconds, and half of it
/// is worse. A killed command is undone by the next one.
pub async fn uninterrupted<T>(work: impl Future<Output = T>) -> T {
    // Listening to a signal is what keeps it from ending the process.
    let listeners = [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ]
    .map(signal);
    let result = work.await;
    drop(listeners);
    result
}

/// Done when a signal asks the process to end, from this call on. Where none can be listened to, it ends the process.
pub fn asked_to_end() -> impl Future<Output = ()> {
    let signals = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
    async {
        match signals {
            [Ok(mut interrupt), Ok(mut terminate)] => tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            },
            _ => std::future::pending().await,
        }
    }
}
