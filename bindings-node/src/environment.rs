//! One JavaScript environment: the main thread, or a worker's.

use std::{
    cell::RefCell,
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use napi::{
    Env,
    bindgen_prelude::{Array, Float64ArraySlice, Function, Null, ToNapiValue, Unknown},
    threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode},
};
use napi_derive::napi;
use whimbrel::{Error, Result};
use whimbrel_bindings_support::{Call, LogRecord, Port, Started, envelope, runtime};

use crate::convert::boundary;

/// The way back of results to one JavaScript thread.
#[napi]
pub struct Environment {
    home: Arc<Home>,
    /// Keeps the thread's event loop going while it is there.
    hold: RefCell<Option<Hold>>,
}

/// An [`Environment`] as the runtime's threads see it.
pub(crate) struct Home {
    port: Port<Completion>,
    /// What can still be cancelled. Only the environment's own thread asks.
    calls: Mutex<HashMap<u64, Started>>,
    /// The environment is being torn down, with all its objects.
    ending: AtomicBool,
}

/// A result on its way to JavaScript.
pub(crate) enum Completion {
    /// Two numbers: nothing is made for them but their place in the array of numbers.
    Pair(f64, [f64; 2]),
    /// What became of a message that gave no pair.
    Sent(f64, Result<String>),
    /// What became of a call.
    Done(f64, Result<Value>),
    /// A line of the log.
    Log(LogRecord),
}

/// What a call resolves with.
pub(crate) enum Value {
    None,
    Pair([f64; 2]),
    Number(f64),
    Text(String),
    /// Something that is made on the environment's own thread.
    Object(Make),
}

type Make = Box<dyn FnOnce(&Env) -> napi::Result<Unknown<'_>> + Send>;

impl Value {
    /// An object of a class, or a typed array.
    pub(crate) fn object<T: ToNapiValue + Send + 'static>(object: T) -> Self {
        Self::Object(Box::new(move |env| object.into_unknown(env)))
    }
}

type Hold = ThreadsafeFunction<(), (), (), napi::Status, false, false, 0>;

#[napi]
impl Environment {
    /// `wake` is called, on this thread, when there are results to drain. It does not keep the event loop going.
    #[napi(constructor, catch_unwind)]
    pub fn new(env: &Env, wake: Function<'_, (), ()>) -> napi::Result<Self> {
        let wake = wake.build_threadsafe_function::<()>().weak::<true>().callee_handled::<false>().build()?;
        // When the environment is gone there is nobody to wake; what waits for it is dropped with it.
        let wake = move || {
            let _ = wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        };
        let home =
            Arc::new(Home { port: Port::new(wake), calls: Mutex::default(), ending: AtomicBool::new(false) });
        // It runs before the objects of the environment are finalized.
        env.add_env_cleanup_hook(home.clone(), |home| home.ending.store(true, Ordering::Release))?;
        Ok(Self { home, hold: RefCell::default() })
    }

    /// Keeps the event loop going until `release`. `nothing` is never called.
    #[napi(catch_unwind)]
    pub fn hold(&self, nothing: Function<'_, (), ()>) -> napi::Result<()> {
        let hold = nothing.build_threadsafe_function::<()>().callee_handled::<false>().build()?;
        self.hold.replace(Some(hold));
        Ok(())
    }

    /// Lets the event loop end.
    #[napi(catch_unwind)]
    pub fn release(&self) {
        self.hold.replace(None);
    }

    /// Takes up to `limit` results. The array begins with whether more are waiting, for which nobody wakes this thread again,
    /// and with the results that are pairs: a token and its two numbers for each. All others follow: token, error as an
    /// envelope or null, value. The token of a line of the log is -1.
    #[napi(catch_unwind)]
    pub fn drain<'env>(&self, env: &'env Env, limit: u32) -> napi::Result<Array<'env>> {
        let mut results = Vec::new();
        let more = self.home.port.take(limit as usize, &mut results);
        let mut pairs = Vec::with_capacity(results.len() * 3);
        let mut others: Vec<(f64, Result<Value>)> = Vec::new();
        for result in results {
            match result {
                Completion::Pair(token, [first, second]) => pairs.extend([token, first, second]),
                Completion::Sent(token, result) => others.push((token, result.map(Value::Text))),
                // What was cancelled meanwhile is dropped here.
                Completion::Done(token, _) if self.home.calls().remove(&(token as u64)).is_none() => {}
                Completion::Done(token, Ok(Value::Pair([first, second]))) => {
                    pairs.extend([token, first, second])
                }
                Completion::Done(token, result) => others.push((token, result)),
                Completion::Log(record) => others.push((LOG, Ok(Value::Text(crate::log::line(&record))))),
            }
        }
        let mut array = env.create_array(0)?;
        array.insert(more)?;
        array.insert(Float64ArraySlice::copy_from(env, pairs)?)?;
        for (token, result) in others {
            array.insert(token)?;
            match result {
                Err(error) => {
                    array.insert(envelope(&error).to_string())?;
                    array.insert(())?;
                    continue;
                }
                Ok(_) => array.insert(Null)?,
            }
            match result {
                Err(_) | Ok(Value::None) => array.insert(())?,
                Ok(Value::Pair(numbers)) => array.insert(numbers.to_vec())?,
                Ok(Value::Number(number)) => array.insert(number)?,
                Ok(Value::Text(text)) => array.insert(text)?,
                Ok(Value::Object(make)) => array.insert(make(env)?)?,
            }
        }
        Ok(array)
    }

    /// Stops the call with this token, which gives no result any more.
    #[napi(catch_unwind)]
    pub fn cancel(&self, token: f64) {
        if let Some(started) = self.home.calls().remove(&(token as u64)) {
            started.cancel();
        }
    }
}

impl Environment {
    pub(crate) fn home(&self) -> &Arc<Home> {
        &self.home
    }

    /// Starts `work` under `token`.
    pub(crate) fn call(
        &self,
        operation: &'static str,
        token: f64,
        work: impl Future<Output = Result<Value>> + Send + 'static,
    ) -> napi::Result<()> {
        boundary(operation, || {
            self.home.start(token, Call::new(operation, runtime()?, work));
            Ok(())
        })
    }
}

impl Home {
    /// Starts `call`; its result comes under `token`.
    pub(crate) fn start(self: &Arc<Self>, token: f64, call: Call<Value>) {
        let home = self.clone();
        let started = call.start(move |result| home.push([Completion::Done(token, result)]));
        // Its result cannot have been drained yet: that happens on this thread.
        self.calls().insert(token as u64, started);
    }

    /// Whether an object that goes now goes with its whole thread, and was not just forgotten by the program.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    pub(crate) fn push(&self, completions: impl IntoIterator<Item = Completion>) {
        self.port.push(completions);
    }

    fn calls(&self) -> MutexGuard<'_, HashMap<u64, Started>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pair of numbers for JavaScript, if both are exact there.
pub(crate) fn exact_pair([first, second]: [u64; 2]) -> Option<[f64; 2]> {
    let fits = |number: u64| number < (1 << 53);
    (fits(first) && fits(second)).then_some([first as f64, second as f64])
}

/// Runs what waits for the disk where it holds up nobody.
pub(crate) async fn blocking<R: Send + 'static>(
    operation: &'static str,
    work: impl FnOnce() -> Result<R> + Send + 'static,
) -> Result<R> {
    tokio::task::spawn_blocking(move || whimbrel_bindings_support::guard(operation, work))
        .await
        .unwrap_or_else(|error| {
            Err(Error::new(whimbrel::ErrorKind::Internal, operation, "the work did not end").caused_by(error))
        })
}

/// The token of lines of the log.
const LOG: f64 = -1.0;
