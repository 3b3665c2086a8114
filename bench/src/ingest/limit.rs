//! What the disk allows: groups of messages written to a prepared file, one `fdatasync` for each group.

use std::{
    fs::OpenOptions,
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

const FILE_BYTES: u64 = 64 * 1024 * 1024;

/// Messages of `bytes` bytes that reach the disk in one second when they come in groups of `group`.
pub(super) fn messages_per_second(
    folder: &Path,
    bytes: usize,
    group: usize,
    time: Duration,
) -> io::Result<f64> {
    let path = folder.join("limit");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&path)?;
    let zeros = vec![0; 1024 * 1024];
    for offset in (0..FILE_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, offset)?;
    }
    file.sync_all()?;
    let data = vec![0x5A; bytes * group];
    let mut offset = 0;
    let mut groups = 0_u64;
    let start = Instant::now();
    while start.elapsed() < time {
        if offset + data.len() as u64 > FILE_BYTES {
            offset = 0;
        }
        file.write_all_at(&data, offset)?;
        file.sync_data()?;
        offset += data.len() as u64;
        groups += 1;
    }
    let per_second = groups as f64 * group as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(per_second)
}
