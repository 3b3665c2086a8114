//! Swift: what is in the PATH, or else a small Debian system in the cache that has it, entered by chroot.
//!
//! Debian brings Swift from release 13 on, and a compiler built for one release does not run on an older one. So the whole
//! release comes along, about 3 GB, and what it builds runs inside, too. Everything inside happens in a mount namespace of its
//! own: however a program ends, no mount outlives it.

use std::{
    ffi::OsString,
    fmt::Write as _,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use super::{cache, is_root, program};
use crate::{
    shell::{self, say},
    workspace,
};

/// A Swift that can be used.
pub(crate) struct Swift {
    /// What a program and its arguments are put behind, so that it runs where Swift is.
    entry: Vec<OsString>,
}

impl Swift {
    /// Finds it, or brings it into the cache, which takes minutes the first time.
    ///
    /// # Errors
    /// What is missing, for people.
    pub(crate) fn get() -> Result<Self, String> {
        if shell::find("swift").is_some() {
            return Ok(Self { entry: Vec::new() });
        }
        if !is_root() {
            return Err(format!(
                "swift is not installed, and only root can bring it from Debian {SUITE} (debootstrap and chroot): \
                 install Swift 6 from swift.org, or run this as root"
            ));
        }
        let unshare = program("unshare", "util-linux")?;
        let root = cache().join(format!("swift-{SUITE}"));
        let stamp = root.with_extension("txt");
        let enter = root.with_extension("sh");
        let wanted = format!("{SUITE}: {PACKAGES}\n");
        if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
            write_entry(&enter, &root, &unshare)?;
            return Ok(Self { entry: vec![enter.into()] });
        }
        bring(&unshare, &root)?;
        write_entry(&enter, &root, &unshare)?;
        fs::write(&stamp, &wanted).map_err(|error| error.to_string())?;
        Ok(Self { entry: vec![enter.into()] })
    }

    /// What a program is put behind to run where Swift is.
    pub(crate) fn entry(&self) -> &[OsString] {
        &self.entry
    }

    /// `PROGRAM ARGUMENTS` where Swift is, in the present folder or the one the command is given. It sees this project, the cache
    /// and the folder for temporary files by their usual names. Its process id is the program's: killing it kills the program.
    pub(crate) fn words(&self, program: impl Into<OsString>) -> Vec<OsString> {
        let mut words = self.entry.clone();
        words.push(program.into());
        words
    }

    /// The same, to be run.
    pub(crate) fn command(&self, program: impl Into<OsString>) -> Command {
        let words = self.words(program);
        let mut words = words.into_iter();
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        command
    }
}

/// Makes the system in `root` anew.
fn bring(unshare: &Path, root: &Path) -> Result<(), String> {
    let debootstrap = program("debootstrap", "debootstrap")?;
    let mirror = mirror()?;
    // What an interrupted run left behind. A mount in it would be somebody else's files.
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    if mounts
        .lines()
        .any(|line| line.split(' ').nth(4).is_some_and(|point| Path::new(point).starts_with(root)))
    {
        return Err(format!("something is mounted in {}: unmount it first", root.display()));
    }
    if root.exists() {
        fs::remove_dir_all(root).map_err(|error| format!("{}: {error}", root.display()))?;
    }
    fs::create_dir_all(root).map_err(|error| format!("{}: {error}", root.display()))?;
    say(format!("installing Debian {SUITE} with Swift in {} (1 GB to download)", root.display()));
    let mut install = Command::new(unshare);
    install.arg("--mount").arg(debootstrap);
    install.arg("--variant=minbase").arg(format!("--include={PACKAGES}")).arg(SUITE).arg(root).arg(&mirror);
    if let Some(proxy) = apt_config("Acquire::http::Proxy") {
        install.env("http_proxy", proxy);
    }
    let finished = shell::watch(&mut install, Duration::from_secs(3_600), |_| ());
    let finished = finished.map_err(|error| error.to_string())?;
    if !finished.success() {
        return Err(format!("debootstrap: {}; its last lines:\n{}", finished.ending(), finished.tail(20)));
    }
    // The packages themselves are not needed any more.
    let _ = fs::remove_dir_all(root.join("var/cache/apt/archives"));
    Ok(())
}

/// Where this system gets Debian from, as apt is set up.
fn mirror() -> Result<String, String> {
    let ask = || {
        let mut apt = Command::new("apt-get");
        apt.args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Label: Debian"]);
        shell::output(&mut apt)
            .map_err(|error| format!("swift is not installed, and there is no apt-get: {error}"))
    };
    let first = |text: &str| text.lines().next().map(str::to_owned).filter(|line| !line.is_empty());
    if let Some(found) = first(&ask()?.1) {
        return Ok(found);
    }
    // Without package lists apt does not know what is Debian's.
    super::run_apt(Command::new("apt-get").args(["update", "--quiet"])).map_err(|error| error.to_string())?;
    first(&ask()?.1).ok_or_else(|| {
        "swift is not installed, and apt has no Debian archive to bring it from: install Swift 6 from swift.org".to_owned()
    })
}

fn apt_config(name: &str) -> Option<String> {
    let (good, text) =
        shell::output(Command::new("apt-config").args(["dump", "--format", "%v%n", name])).ok()?;
    text.lines().next().filter(|line| good && !line.is_empty()).map(str::to_owned)
}

/// Writes the script that runs a program inside.
fn write_entry(enter: &Path, root: &Path, unshare: &Path) -> Result<(), String> {
    let text = entry(root, unshare, &folders()).ok_or("a folder has a name that is no text")?;
    if fs::read_to_string(enter).is_ok_and(|found| found == text) {
        return Ok(());
    }
    let written = fs::write(enter, text);
    let executable = || fs::set_permissions(enter, fs::Permissions::from_mode(0o755));
    written.and_then(|()| executable()).map_err(|error| format!("{}: {error}", enter.display()))
}

/// Folders that are inside as they are outside.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![workspace::root().to_path_buf(), cache(), std::env::temp_dir()];
    folders.extend(std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from));
    folders.retain(|folder| folder.is_absolute());
    folders
}

/// The script: in a mount namespace of its own, it makes the folders visible inside and becomes the program.
fn entry(root: &Path, unshare: &Path, folders: &[PathBuf]) -> Option<String> {
    let (unshare, root) = (quoted(unshare)?, quoted(root)?);
    let mut text = format!(
        "#!/bin/sh -e\n[ \"$1\" = --inside ] || exec {unshare} --mount \"$0\" --inside \"$@\"\nshift\nroot={root}\n"
    );
    text.push_str("mount --rbind /proc \"$root/proc\"\nmount --rbind /dev \"$root/dev\"\n");
    for folder in folders {
        let folder = quoted(folder)?;
        let _ = writeln!(
            text,
            "[ ! -d {folder} ] || {{ mkdir -p \"$root\"{folder} && mount --bind {folder} \"$root\"{folder}; }}"
        );
    }
    text.push_str("here=$PWD\n");
    text.push_str(
        "exec chroot \"$root\" /usr/bin/env -u LD_LIBRARY_PATH HOME=/root PATH=/usr/bin:/bin:/usr/sbin:/sbin \
         /bin/sh -c 'cd \"$0\" && exec \"$@\"' \"$here\" \"$@\"\n",
    );
    Some(text)
}

fn quoted(path: &Path) -> Option<String> {
    Some(format!("'{}'", path.to_str()?.replace('\'', "'\\''")))
}

/// The first release of Debian that has Swift.
const SUITE: &str = "trixie";
/// What is in the system besides the least there can be.
const PACKAGES: &str = "ca-certificates,swiftlang,libc6-dev,libstdc++-14-dev,make";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_mounts_in_a_namespace_of_its_own_and_quotes() {
        let text = entry(Path::new("/c/it's"), Path::new("/usr/bin/unshare"), &["/a b".into()]).unwrap();
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("#!/bin/sh -e"));
        assert!(lines.next().unwrap().contains("exec '/usr/bin/unshare' --mount \"$0\" --inside"), "{text}");
        assert!(text.contains("root='/c/it'\\''s'"), "{text}");
        assert!(text.contains("mount --bind '/a b' \"$root\"'/a b'"), "{text}");
    }
}
