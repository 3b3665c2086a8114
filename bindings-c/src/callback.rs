//! Functions of the program that are told a result later.

use std::{ffi::c_void, ptr};

use whimbrel::Result;

use crate::{
    border::{hand_over, invalid},
    command::whimbrel_command,
    error::whimbrel_error,
    receipt::{whimbrel_outcome, whimbrel_receipt},
};

/// Frees the context of a callback. Called exactly once for each call that was given it: after the callback, or when there will be
/// none because the call failed at once. NULL when there is nothing to free.
pub type whimbrel_drop_fn = Option<unsafe extern "C" fn(context: *mut c_void)>;

/// Is told that a call has ended.
///
/// context: as it was given. error: what went wrong, lent until this returns; NULL when it went well.
pub type whimbrel_done_fn = Option<unsafe extern "C" fn(context: *mut c_void, error: *const whimbrel_error)>;

/// Is told a number. As whimbrel_done_fn; count is 0 when something went wrong.
pub type whimbrel_count_fn =
    Option<unsafe extern "C" fn(context: *mut c_void, error: *const whimbrel_error, count: u64)>;

/// Gets a receipt, to be freed with whimbrel_receipt_free(). As whimbrel_done_fn; receipt is NULL when something went wrong.
pub type whimbrel_receipt_fn = Option<
    unsafe extern "C" fn(context: *mut c_void, error: *const whimbrel_error, receipt: *mut whimbrel_receipt),
>;

/// Gets the receipts of many messages, in their order, each to be freed with whimbrel_receipt_free(). As whimbrel_done_fn; receipts is
/// NULL and count 0 when something went wrong. The array itself is lent until this returns.
pub type whimbrel_receipts_fn = Option<
    unsafe extern "C" fn(
        context: *mut c_void,
        error: *const whimbrel_error,
        receipts: *mut *mut whimbrel_receipt,
        count: usize,
    ),
>;

/// Gets an outcome, to be freed with whimbrel_outcome_free(). As whimbrel_done_fn; outcome is NULL when something went wrong.
pub type whimbrel_outcome_fn = Option<
    unsafe extern "C" fn(context: *mut c_void, error: *const whimbrel_error, outcome: *mut whimbrel_outcome),
>;

/// Gets a command, to be freed with whimbrel_command_free(). As whimbrel_done_fn; command is NULL when something went wrong.
pub type whimbrel_command_fn = Option<
    unsafe extern "C" fn(context: *mut c_void, error: *const whimbrel_error, command: *mut whimbrel_command),
>;

/// What a callback is given; freed when this is dropped.
pub(crate) struct Context {
    pointer: *mut c_void,
    free: whimbrel_drop_fn,
}

// SAFETY: callbacks are told to be called on another thread, so what a program gives them as context is made for that.
unsafe impl Send for Context {}

impl Context {
    pub(crate) fn new(pointer: *mut c_void, free: whimbrel_drop_fn) -> Self {
        Self { pointer, free }
    }

    pub(crate) fn pointer(&self) -> *mut c_void {
        self.pointer
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if let Some(free) = self.free {
            // SAFETY: it is a function of the program for exactly this pointer, and is called once.
            unsafe { free(self.pointer) }
        }
    }
}

/// A callback of type `F`, which is not NULL, and its context.
pub(crate) struct Callback<F> {
    call: F,
    context: Context,
}

impl<F> Callback<F> {
    /// The context is freed when there is no callback.
    pub(crate) fn new(operation: &'static str, call: Option<F>, context: Context) -> Result<Self> {
        match call {
            Some(call) => Ok(Self { call, context }),
            None => Err(invalid(operation, "callback", "is NULL")),
        }
    }

    /// Tells it `result`, where `call` is what calls the function.
    fn tell<T>(self, result: Result<T>, call: impl FnOnce(F, *mut c_void, *const whimbrel_error, Option<T>)) {
        let (value, error) = match result {
            Ok(value) => (Some(value), None),
            Err(error) => (None, Some(whimbrel_error::new(&error))),
        };
        let lent = error.as_ref().map_or(ptr::null(), ptr::from_ref);
        call(self.call, self.context.pointer, lent, value);
    }
}

type Done = unsafe extern "C" fn(*mut c_void, *const whimbrel_error);
type Count = unsafe extern "C" fn(*mut c_void, *const whimbrel_error, u64);
type Handle<H> = unsafe extern "C" fn(*mut c_void, *const whimbrel_error, *mut H);
type Handles<H> = unsafe extern "C" fn(*mut c_void, *const whimbrel_error, *mut *mut H, usize);

impl Callback<Done> {
    pub(crate) fn done(self, result: Result<()>) {
        self.tell(result, |call, context, error, _| {
            // SAFETY: a function of the program, with what it was promised.
            unsafe { call(context, error) }
        });
    }
}

impl Callback<Count> {
    pub(crate) fn count(self, result: Result<u64>) {
        self.tell(result, |call, context, error, count| {
            // SAFETY: a function of the program, with what it was promised.
            unsafe { call(context, error, count.unwrap_or(0)) }
        });
    }
}

impl<H> Callback<Handle<H>> {
    pub(crate) fn handle(self, result: Result<H>) {
        self.tell(result, |call, context, error, value| {
            let value = value.map_or(ptr::null_mut(), hand_over);
            // SAFETY: a function of the program, with what it was promised.
            unsafe { call(context, error, value) }
        });
    }
}

impl<H> Callback<Handles<H>> {
    pub(crate) fn handles(self, result: Result<Vec<H>>) {
        self.tell(result, |call, context, error, values| {
            let mut values: Vec<*mut H> = values.into_iter().flatten().map(hand_over).collect();
            let first = if values.is_empty() { ptr::null_mut() } else { values.as_mut_ptr() };
            // SAFETY: a function of the program, with what it was promised.
            unsafe { call(context, error, first, values.len()) }
        });
    }
}
