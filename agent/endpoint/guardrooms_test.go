package endpoint

import "os"

// roomsBelow are the guards of the rooms that the two above stand on: who a
// caller is, what may be opened, what a file may say.
func roomsBelow() []removal {
	const (
		linux   = "../../platform/linux/"
		store   = "../../store/"
		hostile = "TestHostWithstandsHostileFilesOnEveryKernel"
		suite   = "TestOS10HostKeepsTheContractOnEveryKernel|" + hostile
		draws   = "TestNoCombinationLetsAStrangerIn"
		peers   = "TestClosedPeerIsUnknownAndNotRoot"
		listen  = "TestSocketsThatDoNotFitAreRefused"
	)
	return []removal{
		{linux + "peer.go", `s.inode == 0 || `, ``, peers},
		{linux + "peer.go", `!open || `, `!open && false || `, peers},
		{linux + "peer.go", ` || s.local != local`, ``, peers},
		{linux + "peer.go", ` || s.remote != remote {`, ` {`, peers},
		{linux + "peer.go", `uid == h.overflow || `, ``, peers},
		{linux + "peer.go", ` || uid == noGroup`, ``, peers},
		{linux + "sockdiag.go", ` || seq != diagSequence`, ``, "TestKernelAnswerThatIsNotOursIsRefused"},
		{linux + "accounts.go", ` || u.uid == h.overflow`, ``, "TestAccountsComeFromTheFilesAlone"},
		{linux + "accounts.go", ` || n == 1<<32-1`, ``, "TestAccountsComeFromTheFilesAlone"},
		{linux + "walk.go", `flags |= unix.O_CLOEXEC | unix.O_NOFOLLOW`, `flags |= unix.O_CLOEXEC`, suite},
		{linux + "walk.go", `n.st.Mode&0o022 != 0 && !sticky`, `n.st.Mode&0o002 != 0 && !sticky`, hostile},
		{linux + "walk.go", `n.st.Mode&0o022 != 0 && !sticky`, `n.st.Mode&0o020 != 0 && !sticky`, hostile},
		{linux + "walk.go", `h.sticky && n.st.Uid == 0 && `, `n.st.Uid == 0 && `, "TestStickyParentsAreForTrialsOnly"},
		{linux + "walk.go", ` && n.st.Mode&unix.S_ISVTX != 0;`, `;`, "TestStickyParentsAreForTrialsOnly"},
		{linux + "walk.go", `if err := h.sameAsHeld(at); err != nil {`, `if err := error(nil); err != nil {`, suite},
		{linux + "access.go", `n.st.Uid != 0 && n.st.Uid != p.uid`, `false`, draws},
		{linux + "access.go", `if !dir && n.st.Nlink != 1 {`, `if false {`, hostile},
		{linux + "access.go", `return r.perm == 0 && !r.named`, `return r.perm == 0`, hostile},
		{linux + "access.go", `return r.perm&^may(dir) == 0`, `return true`, hostile},
		{linux + "access.go", `return r.perm&2 == 0 // nobody`, `return true // nobody`, draws},
		{linux + "access.go", `if len(def) > 0 && p.access != platform.Public {`, `if false {`, hostile},
		{linux + "access.go", `	case unix.S_IFREG, unix.S_IFDIR:
	default:`, `	default:
	case unix.S_IFSOCK:`, suite},
		{linux + "file.go", `	if look.st.Mode&unix.S_IFMT != unix.S_IFREG {`, `	if false {`, hostile},
		{linux + "file.go", `	if err := h.verify(n, a); err != nil {
		n.close()
		return nil, err
	}
	if flag&os.O_TRUNC`, `	if flag&os.O_TRUNC`, suite},
		{linux + "file.go", `flag&^(os.O_CREATE|os.O_EXCL|os.O_TRUNC)|unix.O_NONBLOCK`, `flag&^(os.O_CREATE|os.O_EXCL)|unix.O_NONBLOCK`, suite},
		{linux + "file.go", `for _, attr := range []string{aclAccess, aclDefault} {`, `for _, attr := range []string{} {`, hostile},
		{linux + "write.go", `if err := h.replaceable(parent, base, a); err != nil {`, `if err := error(nil); err != nil {`, suite},
		{linux + "dir.go", `if st.Dev == d.node.st.Dev && st.Ino == d.node.st.Ino {`, `if true {`, suite},
		{linux + "dir.go", `strings.ContainsAny(name, "/\x00")`, `strings.ContainsAny(name, "\x00")`, suite},
		{linux + "dir.go", ` && st.Nlink == 1 && st.Uid == uid(),`, ` && st.Uid == uid(),`, hostile},
		{linux + "listen.go", `if want.Addr().IsUnspecified() && !l.Everywhere {`, `if false {`, "TestAddressesForTheNetworkAreRefused|TestWildcardIsListenedOnOnlyWhereItIsMeant"},
		{linux + "listen.go", `lc.SetMultipathTCP(false)`, `lc.SetMultipathTCP(true)`, "TestOwnListenerIsPlainTCPOnTheLoopbackDevice"},
		{linux + "listen.go", `if proto != unix.IPPROTO_TCP {`, `if false {`, listen},
		{linux + "inherited.go", `env("LISTEN_PID") != strconv.Itoa(os.Getpid())`, `false`, "TestSocketsOfAnotherProcessAreNotOurs"},
		{linux + "inherited.go", ` || typ != unix.SOCK_STREAM || accepts != 1`, ` || typ < 0 || accepts < 0`, listen},
		{linux + "filesystem.go", `{name: "fuse", remote: true}`, `{name: "fuse"}`, "TestRemoteAndVolatileFileSystemsAreNamed"},

		{store + "envelope.go", `p.associated(sealed[:headerLen]))`, `p.associated(nil))`, "TestSealedValueOpensOnlyWhereItWasPut"},
		{store + "envelope.go", `	out = append(out, p.bucket...)
`, ``, "TestSealedValueOpensOnlyWhereItWasPut"},
		{store + "envelope.go", `return append(out, p.key...)`, `return out`, "TestSealedValueOpensOnlyWhereItWasPut"},
		{store + "load.go", `if l.head.Kind != kind {`, `if false {`, "TestFileIsRefusedForAnotherKeyKindOrOwner"},
		{store + "load.go", `if l.head.Key != k.ID() {`, `if false {`, "TestFileIsRefusedForAnotherKeyKindOrOwner"},
		{store + "load.go", `if found != l.root {`, `if false {`, "TestValuesThatAreNotTheNewestAreNoticedAtOpen"},
		{store + "head.go", `if h.Major > mine.Major {`, `if false {`, "TestST6_NewerMajorIsRefusedUntouchedNamingBothVersions"},
		{store + "head.go", `err != nil || !sumCovers(content, h.Sum)`, `err != nil`, "TestDamagedHeadIsNeverTakenForANewerOne"},
		{store + "handle.go", `	if err := samePath(f, path); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return mapFile`, `	return mapFile`, "TestFileExchangedWhileItIsCheckedIsRefused"},
		{store + "handle.go", `if err == nil && info.Size() == 0 {`, `if false {`, "TestST1_EmptyCacheIsRebuilt"},
		{store + "db.go", `if !os.SameFile(held, now) {`, `if false {`, "TestST16_NothingIsWrittenToAStrangersDirectory"},
		{store + "db.go", `if system.Remote && !o.AllowRemote {`, `if false {`, "TestST19_NetworkFileSystemIsRefusedNamingTheOverride"},
		{store + "identityopen.go", `cause == nil && d.file.root.generation >= m.Generation`, `cause == nil`, "TestOlderDatabaseIsNoticedByTheMarker"},
		{store + "recover.go", `if err := d.replaceable(path); err != nil {`, `if err := notRegular(path); err != nil {`, "TestST17_BackupCopyWithUnsafeAccessIsNotReplaced"},
		{store + "key.go", `		case !bytes.Equal(raw, part):
			return nil, false
`, ``, "TestWorthlessKeyFileIsDamagedAndKept"},
		{store + "plain.go", `if info.Size() > limit {`, `if false {`, "TestMissingMarkerIsAnAnswerAndAHugeOneIsNot"},
		{store + "cacheopen.go", `[]string{identityName, identityName + ".bak", markerName}`, `[]string{}`, "TestCacheNeverMakesAKeyWhereAnIdentityLostIts"},
		{store + "destroy.go", `if err := overwrite(f.keyPath(), f.db.o); err != nil {`, `if err := error(nil); err != nil {`, "TestDestroyedKeyIsOverwrittenBeforeItIsRemoved"},
	}
}

// asRoot are those whose tests need accounts, mounts and namespaces.
func asRoot() []removal {
	const (
		linux   = "../../platform/linux/"
		hostile = "TestHostWithstandsHostileFilesOnEveryKernel"
		dropped = "TestRootPreparesAndTheAgentRunsWithoutIt"
	)
	if os.Geteuid() != 0 {
		return nil
	}
	return []removal{
		{linux + "peer.go", `err == nil && cred.Pid != 0`, `err == nil`, "TestCallerOutsideThePidNamespaceIsNobody"},
		{linux + "walk.go", `if n.st.Uid != 0 && n.st.Uid != uid() {`, `if false {`, hostile},
		{linux + "dir.go", ` || st.Uid != uid() {`, ` {`, hostile},
		{linux + "dir.go", `	if n.st.Uid != 0 && n.st.Uid != uid() {`, `	if false {`, hostile},
		{linux + "listen.go", `if err == unix.EPERM && want.Addr().IsLoopback() {`, `if err == unix.EPERM {`, dropped},
		{linux + "drop.go", `if err := syscall.Setgroups([]int{int(gid)}); err != nil {`, `if err := error(nil); err != nil {`, dropped},
		{linux + "drop.go", `err == nil && st.Uid == uid {`, `err == nil && st.Uid == uid && false {`, "TestRootMakesNothingInADirectoryOfTheAccount"},
		{linux + "harden.go", `unix.Umask(0o077)`, `unix.Umask(0o022)`, "TestHardenedProcessKeepsItsMemoryAndItsAbilities"},
		{linux + "harden.go", `step("dump", undumpable())`, `step("dump", nil)`, "TestHardenedProcessKeepsItsMemoryAndItsAbilities"},
	}
}
