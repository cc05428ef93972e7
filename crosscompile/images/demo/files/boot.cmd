# Which slot is booted, on U-Boot. The record lies in the partition "slots":
# two copies at block 0 and 8 that only the system writes, and at block 16 the
# number of attempts that a trial has left, which only this script writes.
# A record that cannot be read boots slot a; a slot that cannot be loaded gives
# way to the other. A trial that hangs needs the board's watchdog.
setenv good a
setenv trial
setenv trial_id
part start ${devtype} ${devnum} 2 base
setexpr second ${base} + 8
setexpr attempts ${base} + 10

if virtio read ${loadaddr} ${base} 8 && env import -c ${loadaddr} 1000 good trial trial_id; then
  true
else
  echo "slots: the first record is damaged"
  if virtio read ${loadaddr} ${second} 8 && env import -c ${loadaddr} 1000 good trial trial_id; then
    true
  else
    echo "slots: no record can be read, slot a is booted"
    setenv good a
    setenv trial
  fi
fi

setenv slot ${good}
if test -n "${trial}"; then
  setenv left
  setenv left_id
  if virtio read ${loadaddr} ${attempts} 8 && env import -c ${loadaddr} 1000 left left_id; then
    true
  fi
  if test "${left_id}" != "${trial_id}"; then
    setenv left 3
    setenv left_id ${trial_id}
  fi
  if test "${left}" != 0; then
    setexpr left ${left} - 1
    mw.b ${loadaddr} 0 1000
    if env export -c -s 1000 ${loadaddr} left left_id && virtio write ${loadaddr} ${attempts} 8; then
      setenv slot ${trial}
      echo "slots: ${trial} is on trial, ${left} attempts left after this one"
    else
      echo "slots: the attempt cannot be counted, ${good} is booted"
    fi
  else
    echo "slots: ${trial} did not prove itself, back to ${good}"
  fi
fi

for s in ${slot} ${good}; do
  echo "slots: booting ${s}"
  setenv bootargs "console=ttyAMA0 panic=5 quiet slot=${s}"
  if load ${devtype} ${devnum}:${distro_bootpart} ${kernel_addr_r} /${s}/vmlinuz; then
    if load ${devtype} ${devnum}:${distro_bootpart} ${ramdisk_addr_r} /${s}/initrd; then
      booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${fdtcontroladdr}
    fi
  fi
done
echo "slots: neither slot boots"
sleep 5
reset
