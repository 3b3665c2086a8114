//! Where the pointers of a C program become values of Rust, and values of Rust become pointers.
//!
//! Each function of the library checks what it is given through these: a pointer that is NULL or not aligned, a text that is
//! not UTF-8, a length that cannot be, are `INVALID_ARGUMENT` naming the parameter. What C cannot tell and so nobody can
//! check, that a pointer is alive and of the type its declaration says, is the caller's word; the head of the header says so.

use std::{
    ffi::{CStr, c_char},
    mem::size_of,
    panic::{AssertUnwindSafe, catch_unwind},
    ptr, slice,
};

use whimbrel::{Error, ErrorKind, Result};
use whimbrel_bindings_support::guard;

use crate::error::{self, whimbrel_status};

/// Does a call: a panic in it is an error, and an error is what `whimbrel_last_error` tells until the next call.
pub(crate) fn boundary(operation: &'static str, work: impl FnOnce() -> Result<()>) -> whimbrel_status {
    error::forget();
    match guard(operation, work) {
        Ok(()) => whimbrel_status::WHIMBREL_STATUS_OK,
        Err(error) => error::keep(error),
    }
}

/// Does a call that gives a handle: `out` is NULL unless it succeeds.
///
/// # Safety
/// As [`place`].
pub(crate) unsafe fn give<H>(
    operation: &'static str,
    out: *mut *mut H,
    work: impl FnOnce() -> Result<H>,
) -> whimbrel_status {
    boundary(operation, || {
        // SAFETY: promised by the caller.
        let out = unsafe { place(operation, "out", out)? };
        *out = ptr::null_mut();
        *out = hand_over(work()?);
        Ok(())
    })
}

/// As [`give`], for a handle that the caller may not want: then `out` is NULL, and nothing is made.
///
/// # Safety
/// As [`place`].
pub(crate) unsafe fn give_if_wanted<H>(
    operation: &'static str,
    out: *mut *mut H,
    work: impl FnOnce(bool) -> Result<Option<H>>,
) -> whimbrel_status {
    boundary(operation, || {
        if out.is_null() {
            return work(false).map(drop);
        }
        // SAFETY: promised by the caller.
        let out = unsafe { place(operation, "out", out)? };
        *out = ptr::null_mut();
        *out = work(true)?.map_or(ptr::null_mut(), hand_over);
        Ok(())
    })
}

/// Does a call that gives a number: it is `nothing` unless the call succeeds.
///
/// # Safety
/// As [`place`].
pub(crate) unsafe fn tell<T>(
    operation: &'static str,
    out: *mut T,
    nothing: T,
    work: impl FnOnce() -> Result<T>,
) -> whimbrel_status {
    boundary(operation, || {
        // SAFETY: promised by the caller.
        let out = unsafe { place(operation, "out", out)? };
        *out = nothing;
        *out = work()?;
        Ok(())
    })
}

/// What a getter reads from a handle; `otherwise` for NULL, and for a handle that says no. A getter leaves the last error alone.
///
/// # Safety
/// As [`borrow`].
pub(crate) unsafe fn get<'a, H: 'a, T>(
    handle: *const H,
    otherwise: T,
    read: impl FnOnce(&'a H) -> Option<T>,
) -> T {
    // SAFETY: promised by the caller.
    match unsafe { borrow("get", "handle", handle) } {
        Ok(handle) => catch_unwind(AssertUnwindSafe(|| read(handle))).ok().flatten().unwrap_or(otherwise),
        Err(_) => otherwise,
    }
}

/// Gives a value to the program, which frees it through [`release`].
pub(crate) fn hand_over<H>(value: H) -> *mut H {
    Box::into_raw(Box::new(value))
}

/// Takes a value back and drops it, and makes the variable that held it NULL, so that freeing through the same variable again
/// does nothing. Leaves the last error alone.
///
/// # Safety
/// `handle` is NULL, or points to a variable that is NULL or holds what [`hand_over`] gave and nobody uses any more.
pub(crate) unsafe fn release<H>(handle: *mut *mut H) {
    if handle.is_null() || !handle.is_aligned() {
        return;
    }
    // SAFETY: it is not NULL, and points to a variable of the caller.
    let taken = unsafe { ptr::replace(handle, ptr::null_mut()) };
    if !taken.is_null() {
        // SAFETY: it came from `hand_over`, and the variable that held it is NULL now.
        let taken = unsafe { Box::from_raw(taken) };
        // Whatever goes wrong in it must not go up into C.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(taken)));
    }
}

/// The handle behind a pointer.
///
/// # Safety
/// `pointer` is NULL, or came from [`hand_over`] and is not freed while the result is used.
pub(crate) unsafe fn borrow<'a, H>(
    operation: &'static str,
    name: &'static str,
    pointer: *const H,
) -> Result<&'a H> {
    check(operation, name, pointer)?;
    // SAFETY: it is neither NULL nor badly aligned, and promised to be alive.
    Ok(unsafe { &*pointer })
}

/// A variable of the program, to be written.
///
/// # Safety
/// `pointer` is NULL, or points to a variable of this type that nobody else uses meanwhile.
pub(crate) unsafe fn place<'a, T>(
    operation: &'static str,
    name: &'static str,
    pointer: *mut T,
) -> Result<&'a mut T> {
    check(operation, name, pointer)?;
    // SAFETY: it is neither NULL nor badly aligned, and promised to be a variable. The types written are pointers and numbers,
    // for which any content the variable may have had is a value.
    Ok(unsafe { &mut *pointer })
}

/// A text that has to be there.
///
/// # Safety
/// `pointer` is NULL, or points to bytes that end with a NUL and do not change while the result is used.
pub(crate) unsafe fn text<'a>(
    operation: &'static str,
    name: &'static str,
    pointer: *const c_char,
) -> Result<&'a str> {
    check(operation, name, pointer)?;
    // SAFETY: it is not NULL, and promised to end with a NUL.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    bytes.to_str().map_err(|error| invalid(operation, name, "is not UTF-8").with("at", error.valid_up_to()))
}

/// A text that may be NULL.
///
/// # Safety
/// As [`text`].
pub(crate) unsafe fn optional_text(
    operation: &'static str,
    name: &'static str,
    pointer: *const c_char,
) -> Result<Option<String>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: promised by the caller.
    unsafe { text(operation, name, pointer) }.map(|text| Some(text.to_owned()))
}

/// `count` values in a row; NULL is fine for none.
///
/// # Safety
/// `pointer` is NULL, or points to so many values that do not change while the result is used.
pub(crate) unsafe fn values<'a, T>(
    operation: &'static str,
    name: &'static str,
    pointer: *const T,
    count: usize,
) -> Result<&'a [T]> {
    if count == 0 {
        return Ok(&[]);
    }
    check(operation, name, pointer)?;
    check_extent(operation, name, count, size_of::<T>())?;
    // SAFETY: it is neither NULL nor badly aligned, promised to hold so many, and not larger than an object may be.
    Ok(unsafe { slice::from_raw_parts(pointer, count) })
}

/// `count` variables of the program in a row, to be written.
///
/// # Safety
/// `pointer` is NULL, or points to so many variables that nobody else uses meanwhile.
pub(crate) unsafe fn places<'a, T>(
    operation: &'static str,
    name: &'static str,
    pointer: *mut T,
    count: usize,
) -> Result<&'a mut [T]> {
    if count == 0 {
        return Ok(&mut []);
    }
    check(operation, name, pointer)?;
    check_extent(operation, name, count, size_of::<T>())?;
    // SAFETY: as in `values`, and as in `place`.
    Ok(unsafe { slice::from_raw_parts_mut(pointer, count) })
}

/// A structure of the program that begins with its size, as this library knows it.
///
/// # Safety
/// `S` is `repr(C)`, begins with a `usize`, and any bytes are a value of it. `pointer` is NULL, or points to as many bytes as
/// the size in it says.
pub(crate) unsafe fn sized<S: Copy>(
    operation: &'static str,
    name: &'static str,
    pointer: *const S,
) -> Result<S> {
    check(operation, name, pointer)?;
    // SAFETY: neither NULL nor badly aligned; the size comes first.
    let size = unsafe { pointer.cast::<usize>().read() };
    check_size(operation, name, size, size_of::<S>())?;
    // SAFETY: it has the size of an `S`, of which any bytes are a value.
    Ok(unsafe { pointer.read() })
}

/// `count` such structures in a row.
///
/// # Safety
/// As [`sized`].
pub(crate) unsafe fn sized_values<'a, S: Copy>(
    operation: &'static str,
    name: &'static str,
    pointer: *const S,
    count: usize,
) -> Result<&'a [S]> {
    // SAFETY: promised by the caller.
    let all = unsafe { values(operation, name, pointer, count)? };
    for (index, one) in all.iter().enumerate() {
        // SAFETY: it is one of them; the size comes first.
        let size = unsafe { ptr::from_ref(one).cast::<usize>().read() };
        check_size(operation, name, size, size_of::<S>()).map_err(|error| error.with("index", index))?;
    }
    Ok(all)
}

/// A variable for such a structure, to be written.
///
/// # Safety
/// As [`sized`], and as [`place`].
pub(crate) unsafe fn sized_place<'a, S: Copy>(
    operation: &'static str,
    name: &'static str,
    pointer: *mut S,
) -> Result<&'a mut S> {
    // SAFETY: promised by the caller.
    unsafe { sized(operation, name, pointer.cast_const())? };
    // SAFETY: promised by the caller.
    unsafe { place(operation, name, pointer) }
}

/// The error for a parameter that cannot be used.
pub(crate) fn invalid(operation: &'static str, name: &'static str, fault: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, operation, format!("{name} {fault}"))
}

/// A structure of another size is of another version. The first version is the only one there is so far, so a smaller one was
/// not initialised, and a larger one has members that this library does not know.
fn check_size(operation: &'static str, name: &'static str, size: usize, known: usize) -> Result<()> {
    if size == known {
        return Ok(());
    }
    let fault = if size < known {
        "was not initialised; begin with the ..._INIT of its type"
    } else {
        "is of a newer version than this library"
    };
    Err(invalid(operation, name, fault).with("size", size).with("known", known))
}

fn check<T>(operation: &'static str, name: &'static str, pointer: *const T) -> Result<()> {
    if pointer.is_null() {
        return Err(invalid(operation, name, "is NULL"));
    }
    if !pointer.is_aligned() {
        return Err(invalid(operation, name, "points to no object of its type: it is not aligned"));
    }
    Ok(())
}

fn check_extent(operation: &'static str, name: &'static str, count: usize, size: usize) -> Result<()> {
    match count.checked_mul(size) {
        Some(bytes) if isize::try_from(bytes).is_ok() => Ok(()),
        _ => Err(invalid(operation, name, "is longer than anything in memory can be").with("count", count)),
    }
}
