//! The thread of a device.

use std::{
    sync::{Arc, Once},
    thread,
};

use tokio::{runtime::Builder, runtime::Handle, sync::oneshot};
use whimbrel::{Error, ErrorKind, Result};

/// The runtime of one device, on one thread of its own. It ends with the last object that was made from the device; nobody waits
/// for it.
pub(crate) struct Engine {
    handle: Handle,
    /// Dropped with the engine, which ends the thread.
    _alive: oneshot::Sender<()>,
}

impl Engine {
    pub(crate) fn start(operation: &'static str) -> Result<Arc<Self>> {
        watch_for_forks();
        let failed = |error: std::io::Error| {
            Error::new(ErrorKind::Internal, operation, "the system gives no thread").caused_by(error)
        };
        let runtime = Builder::new_current_thread()
            .enable_all()
            .thread_name("whimbrel-disk")
            .build()
            .map_err(failed)?;
        let handle = runtime.handle().clone();
        let (alive, ended) = oneshot::channel::<()>();
        let run = move || {
            leave_signals_to_the_program();
            let _ = runtime.block_on(ended);
            // A read of the disk that is under way keeps nobody from ending.
            runtime.shutdown_background();
        };
        thread::Builder::new().name("whimbrel".into()).spawn(run).map_err(failed)?;
        Ok(Arc::new(Self { handle, _alive: alive }))
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }
}

/// Has what was made before a fork fail behind it, in the child: its threads are gone, and it would wait for ever.
fn watch_for_forks() {
    static ONCE: Once = Once::new();

    #[cfg(unix)]
    ONCE.call_once(|| {
        extern "C" fn in_the_child() {
            whimbrel_bindings_support::after_fork();
        }
        // SAFETY: the function is one of this library, which takes the registration back when it is unloaded, and does nothing
        // but add to a number. When there is no room for it, forked children are not told: nothing else depends on it.
        unsafe { libc::pthread_atfork(None, None, Some(in_the_child)) };
    });
    #[cfg(not(unix))]
    ONCE.call_once(|| {});
}

/// Blocks signals on this thread, and on those it starts: handlers run on threads of the program, and a connection that the hub has
/// closed is an error here, not a `SIGPIPE` that ends a program which does not ignore it, as C programs do not.
fn leave_signals_to_the_program() {
    #[cfg(unix)]
    {
        let mut signals = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is made by the first call, and used by the others; the mask is that of this thread alone. None of them
        // fails for signals that there are.
        unsafe {
            libc::sigfillset(signals.as_mut_ptr());
            // A fault of this thread has no other thread to go to.
            for fault in
                [libc::SIGSEGV, libc::SIGBUS, libc::SIGFPE, libc::SIGILL, libc::SIGTRAP, libc::SIGABRT]
            {
                libc::sigdelset(signals.as_mut_ptr(), fault);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut());
        }
    }
}
