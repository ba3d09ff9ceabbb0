#!/bin/sh
# PID 1 of a container, before systemd takes its place. It is started in new pid, mount, uts, ipc and cgroup
# namespaces on a private network by lab/booted.py, and changes nothing outside of them.
#
# usage: boot.sh DISK LOWER UNIT DROPPED [SOURCE TARGET]...
# DISK has the directories upper, work and root; LOWER is the root that they lie over, and stays as it is;
# DROPPED are the capabilities that nobody in there gets.
set -eu
disk=$1 lower=$2 unit=$3 dropped=$4
shift 4
root=$disk/root

mount -t overlay overlay -o "lowerdir=$lower,upperdir=$disk/upper,workdir=$disk/work" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for place in run:0755 tmp:1777 dev:0755; do
    mount -t tmpfs -o "mode=${place#*:}" tmpfs "$root/${place%:*}"
done
mkdir "$root/dev/pts" "$root/dev/shm" "$root/run/lock"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
# Only devices that can do no harm: no disk, no clock, no kernel log.
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
# Settings of the kernel belong to the host.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"

while [ $# -gt 1 ]; do
    mkdir -p "$root$2"
    mount --bind "$1" "$root$2"
    shift 2
done

# A host of its own: nothing that is enabled or mounted on this machine starts in there.
if [ ! -e "$root/etc/.stapleguard-lab" ]; then
    rm -rf "$root"/etc/systemd/system/*.wants "$root/etc/machine-id" "$root/etc/hostname"
    tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
    echo lab >"$root/etc/hostname"
    : >"$root/etc/fstab"
    : >"$root/etc/.stapleguard-lab"
    mkdir -p "$root/var/log/journal" "$root/etc/systemd/journald.conf.d"
    printf '[Journal]\nStorage=persistent\nRateLimitIntervalSec=0\nSystemMaxUse=64M\nAudit=no\n' \
        >"$root/etc/systemd/journald.conf.d/lab.conf"
fi
hostname lab

mkdir "$root/run/outside"
cd "$root"
pivot_root . run/outside
cd /
umount -l /run/outside
rmdir /run/outside
# systemd leaves this to who starts a container; without it LoadCredential= shows an empty directory.
mount --make-rshared /

# Linux has no namespace for the clock: whoever may set it in here sets the host's.
exec setpriv --bounding-set "$dropped" --inh-caps=-all \
    env -i container=lab PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
    /lib/systemd/systemd --system --show-status=0 --unit="$unit"
