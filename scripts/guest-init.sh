#!/bin/sh
# Process 1 of a test guest: brings up the kernel's filesystems, modules and disks, runs /etc/task, stops the machine.
# The console (ttyS0) is for people; ttyS1 carries results to the host, at the end {"exit":STATUS}.
/bin/busybox --install -s /bin
export PATH=/bin HOME=/root
mkdir -p /proc /sys /dev /tmp /root /run /t /var/tmp
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
# What a kernel does not have is missing in the guest, and whoever needs it says so.
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t securityfs securityfs /sys/kernel/security 2>/dev/null
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t tracefs tracefs /sys/kernel/tracing 2>/dev/null
ln -s /proc/self/fd /dev/fd 2>/dev/null
while read -r module; do
    # Loaded twice or not for this processor: the mounts below tell whether it matters.
    insmod "/modules/$module" 2>/dev/null
done </etc/modules
stty -F /dev/ttyS0 -onlcr
stty -F /dev/ttyS1 115200 raw -echo
# Held open until the end: opening a terminal whose last descriptor is being closed fails with EAGAIN when a signal (here
# SIGCHLD) is pending, and the exit status would be lost.
exec 3>/dev/ttyS1
ip link set lo up
disks=
for disk in /sys/block/vd*; do
    [ -e "$disk/serial" ] && disks="$disks $(cat "$disk/serial")=/dev/${disk##*/}"
done
cd /root
# shellcheck disable=SC2086 # one word for each disk
if sh /etc/fixtures.sh /t $disks 3>&-; then
    sh /etc/task 3>&-
    status=$?
else
    echo "guest: a filesystem of the tests could not be mounted"
    status=125
fi
# One write, so that the line is whole.
echo "{\"exit\":$status}" >&3
# QEMU runs with -no-reboot: this ends it on machines without a power switch, too.
reboot -f
