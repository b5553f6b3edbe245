module upcall.test/peers

go 1.26.0

require (
	github.com/firecracker-microvm/firecracker-go-sdk v1.0.0
	github.com/mdlayher/vsock v1.4.0
	golang.org/x/net v0.62.0
)

require (
	github.com/mdlayher/socket v0.8.0 // indirect
	github.com/sirupsen/logrus v1.8.1 // indirect
	golang.org/x/sync v0.24.0 // indirect
	golang.org/x/sys v0.49.0 // indirect
)
