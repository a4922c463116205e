//! The amount of memory that this process could still get, and the room for files.

use std::path::{Path, PathBuf};

use crate::base::{Error, Result};

/// Names of the files in which a Linux control group (cgroup) states its memory limit and its use,
/// and of the counters for file caches, which the kernel takes back when memory is short.
struct Names {
    mount: &'static str,
    limit: &'static str,
    used: &'static str,
    caches: [&'static str; 2],
}

/// The files of cgroups of version 1.
const V1: Names = Names {
    mount: "sys/fs/cgroup/memory",
    limit: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    caches: ["total_active_file", "total_inactive_file"],
};
/// The files of cgroups of version 2.
const V2: Names = Names {
    mount: "sys/fs/cgroup",
    limit: "memory.max",
    used: "memory.current",
    caches: ["active_file", "inactive_file"],
};

/// The limits of a process itself (`ulimit -v` and `ulimit -d`), as `/proc/self/limits` names them,
/// and its use of each, as `/proc/self/status` does.
const OWN: [(&str, &str); 2] = [("Max address space", "VmSize:"), ("Max data size", "VmData:")];

/// Bytes of memory that the system could still give this process, within its own limits and those
/// of its control groups (of a container or a batch job). `None` if the system does not say, as
/// outside Linux.
pub fn available() -> Option<u64> {
    below(Path::new("/"))
}

/// Fails if less than `bytes` bytes of memory are free, which it takes to read `path`.
pub fn check(path: &Path, bytes: u64) -> Result<()> {
    let Some(free) = available().filter(|&free| free < bytes) else { return Ok(()) };
    let what = format!(
        "to read it takes {} MiB of memory, and {} MiB are free",
        bytes.div_ceil(1 << 20),
        free >> 20
    );
    Err(Error::file(path, what, "free some memory, or raise its limit"))
}

/// The largest file in bytes that this process may write (`ulimit -f`). `None` if there is no
/// limit.
pub fn largest_file() -> Option<u64> {
    number(Path::new("/proc/self/limits"), "Max file size")
}

/// Like [`available`], for a machine whose files lie below `root` (tests give a folder of their
/// own).
fn below(root: &Path) -> Option<u64> {
    let system = number(&root.join("proc/meminfo"), "MemAvailable:").map(|kib| kib << 10);
    let text = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = text.lines().flat_map(|line| groups(root, line));
    let own = OWN.iter().filter_map(|(limit, used)| {
        let limit = number(&root.join("proc/self/limits"), limit)?;
        let used = number(&root.join("proc/self/status"), used)? << 10;
        Some(limit.saturating_sub(used))
    });
    system.into_iter().chain(groups).chain(own).min()
}

/// Bytes left below each limit that applies to the group in a line of `/proc/self/cgroup`
/// (number:controllers:path).
fn groups(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { return Vec::new() };
    let names = match controllers {
        "" => V2,
        list if list.split(',').any(|name| name == "memory") => V1,
        _ => return Vec::new(),
    };
    let path = Path::new(path.trim_start_matches('/'));
    // A limit holds for all groups below it. In a container the path may be the host's and not
    // exist here, but the last ancestor, the mount itself, is then the container's own group.
    path.ancestors().filter_map(|group| left(root.join(names.mount).join(group), &names)).collect()
}

/// Bytes left below the limit of one group. `None` if it has no limit.
fn left(group: PathBuf, names: &Names) -> Option<u64> {
    // If there is no limit, the file is missing or says "max".
    let limit = number(&group.join(names.limit), "")?;
    let caches =
        names.caches.iter().filter_map(|name| number(&group.join("memory.stat"), name)).sum();
    let used = number(&group.join(names.used), "")?.saturating_sub(caches);
    Some(limit.saturating_sub(used))
}

/// The number that follows `name` at the start of a line of `file`. If `name` is empty, the number
/// that the file begins with.
fn number(file: &Path, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut values = text.lines().filter_map(|line| line.strip_prefix(name));
    // One name may be the beginning of another: a space must follow.
    values
        .find(|rest| name.is_empty() || rest.starts_with([' ', '\t']))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        below(root.path())
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:  900 kB\nMemAvailable:     700 kB\n");

    #[test]
    fn the_system_says_what_it_has() {
        assert_eq!(machine(&[MEMINFO]), Some(700 << 10));
        assert_eq!(machine(&[]), None);
        #[cfg(target_os = "linux")]
        assert!(available().unwrap() > 1 << 20);
    }

    #[test]
    fn the_tightest_limit_of_the_groups_counts_and_file_caches_are_free() {
        let (stat, own) =
            ("active_file 1000\nactive_file_x 7\ninactive_file 2000\n", "sys/fs/cgroup/a/b");
        let of = |at: &str, limit: &str| [(format!("{at}/memory.max"), limit.to_string())];
        let used = |at: &str| {
            [
                (format!("{at}/memory.current"), "10000".into()),
                (format!("{at}/memory.stat"), stat.into()),
            ]
        };
        let v2 = |inner: &str, outer: &str| {
            let mut files = vec![("proc/self/cgroup".to_string(), "0::/a/b\n".to_string())];
            for (at, limit) in [(own, inner), ("sys/fs/cgroup/a", outer)] {
                files.extend(of(at, limit).into_iter().chain(used(at)));
            }
            let files: Vec<(&str, &str)> = files.iter().map(|(a, b)| (&**a, &**b)).collect();
            machine(&[&[MEMINFO], files.as_slice()].concat())
        };
        assert_eq!(v2("max\n", "max\n"), Some(700 << 10));
        assert_eq!(v2("50000\n", "max\n"), Some(50000 - 7000));
        assert_eq!(v2("50000\n", "30000\n"), Some(30000 - 7000));
        assert_eq!(v2("3000\n", "max\n"), Some(0));
    }

    #[test]
    fn the_limits_of_the_process_count_where_there_are_any() {
        let status =
            ("proc/self/status", "VmPeak:\t  900 kB\nVmSize:\t  200 kB\nVmData:\t 50 kB\n");
        let with = |space: &str, data: &str| {
            let line = |name: &str, soft: &str| format!("{name:<26}{soft:<21}unlimited  bytes\n");
            let limits = line("Max data size", data) + &line("Max address space", space);
            machine(&[MEMINFO, status, ("proc/self/limits", &limits)])
        };
        assert_eq!(with("unlimited", "unlimited"), Some(700 << 10));
        assert_eq!(with("307200", "unlimited"), Some(100 << 10));
        assert_eq!(with("307200", "102400"), Some(50 << 10));
        assert_eq!(with("1024", "unlimited"), Some(0));
    }

    /// A machine with cgroups of version 1, in a container that sees the host's path but its own
    /// group.
    #[test]
    fn the_group_of_a_container_is_the_mount_itself() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "40000\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "10000\n"),
            (
                "sys/fs/cgroup/memory/memory.stat",
                "active_file 9\ntotal_active_file 1\ntotal_inactive_file 2\n",
            ),
        ];
        assert_eq!(machine(&files), Some(40000 - 10000 + 3));
    }
}
