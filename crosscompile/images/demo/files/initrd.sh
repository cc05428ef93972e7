#!/bin/busybox sh
# Mounts the system slot that the boot loader chose, read-only, and starts it.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read -r module; do
	$b insmod "$module" || echo "<3>initrd: $module cannot be loaded" >/dev/kmsg
done </modules

slot=a
for word in $($b cat /proc/cmdline); do
	case $word in slot=*) slot=${word#slot=} ;; esac
done

# There is no udev: a partition is found by its name in the table.
root=
tries=0
while [ -z "$root" ] && [ "$tries" -lt 100 ]; do
	for uevent in /sys/class/block/*/uevent; do
		if $b grep -qx "PARTNAME=rootfs-$slot" "$uevent"; then
			root=/dev/$($b sed -n 's/^DEVNAME=//p' "$uevent")
		fi
	done
	tries=$((tries + 1))
	[ -n "$root" ] || $b usleep 100000
done

if ! $b mount -t squashfs -o ro "$root" /root; then
	echo "<3>initrd: slot $slot cannot be mounted from '$root', restarting in 5 s" >/dev/kmsg
	$b sleep 5
	$b reboot -f
fi
for dir in proc sys dev; do $b mount --move "/$dir" "/root/$dir"; done
exec $b switch_root /root /sbin/init
