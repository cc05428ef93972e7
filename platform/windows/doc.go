// Package windows is the platform.Host of Windows, with the function names of
// platform/linux: protected access lists at birth and by handle, the peer by
// the TCP table, the control pipe, the service.
//
// What can be decided without Windows (security descriptors as text, the rows
// of the TCP table, the firmware table) is decided in files without a build
// constraint, and tested everywhere. The rest compiles and is vetted for amd64
// and arm64; none of it has been proven on a Windows machine yet (and wine
// accepts access lists that it does not store, so a pass there proves nothing
// about them).
package windows
