// Package install lays the agent's files down on a Linux system, or in the
// tree of an image, and takes them away again.
//
// It works in two steps: look at everything and refuse what is not safe or not
// ours, then change one thing after the other. Before the first change it
// writes down what it is about to make, so that whatever stops it, a second
// run completes the work and an uninstall finds all of it. It never follows a
// link that anybody but root could have made, and never goes through a
// directory that others may write (TestNothingIsChangedWhereSomethingIsForeign).
//
// It starts and stops nothing itself but through the commands of Live, which
// are for the system it runs on and never for a tree.
package install
