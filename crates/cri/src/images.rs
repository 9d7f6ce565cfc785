//! The calls of the CRI's `ImageService`.
//!
//! It is not a pull policy and knows no back-off: one method, one request.

use crate::error::CriError;
use crate::runtime::Runtime;
use crate::v1;

/// Sends `$message` by method `$method` of the image service.
macro_rules! image_call {
    ($self:ident, $name:literal, $method:ident, $deadline:expr, $message:expr) => {{
        let mut client = $self.images();
        $self.call($name, $deadline, $message, |request| async move { client.$method(request).await })
    }};
}

impl Runtime {
    /// The images that match; all without a filter.
    pub async fn list_images(&self, filter: Option<v1::ImageFilter>) -> Result<Vec<v1::Image>, CriError> {
        let request = v1::ListImagesRequest { filter };
        let deadline = Some(self.request_timeout());
        Ok(image_call!(self, "ListImages", list_images, deadline, request).await?.images)
    }

    /// The image, or `None` where the runtime does not have it.
    pub async fn image_status(&self, image: v1::ImageSpec) -> Result<Option<v1::Image>, CriError> {
        let request = v1::ImageStatusRequest { image: Some(image), verbose: false };
        let deadline = Some(self.request_timeout());
        Ok(image_call!(self, "ImageStatus", image_status, deadline, request).await?.image)
    }

    /// The chain of an image's layers, by which a containerd finds what it unpacked; `None` where it does not say.
    pub async fn image_chain(&self, image: v1::ImageSpec) -> Result<Option<String>, CriError> {
        let request = v1::ImageStatusRequest { image: Some(image), verbose: true };
        let deadline = Some(self.request_timeout());
        let answer = image_call!(self, "ImageStatus", image_status, deadline, request).await?;
        Ok(answer.info.get("info").and_then(|info| text_field(info, &["chainID"])))
    }

    /// Whether the runtime has the image under this reference.
    pub async fn image_present(&self, reference: &str) -> Result<bool, CriError> {
        let image = v1::ImageSpec { image: reference.to_owned(), ..Default::default() };
        Ok(self.image_status(image).await?.is_some())
    }

    /// Pulls the image; the reference to use in a container. It has no deadline, as upstream gives it none: the runtime
    /// ends a pull that makes no progress. Drop the future to give up.
    pub async fn pull_image(
        &self,
        image: v1::ImageSpec,
        auth: Option<v1::AuthConfig>,
        sandbox: Option<v1::PodSandboxConfig>,
    ) -> Result<String, CriError> {
        let request = v1::PullImageRequest { image: Some(image), auth, sandbox_config: sandbox };
        Ok(image_call!(self, "PullImage", pull_image, None, request).await?.image_ref)
    }

    /// Removes the image; succeeds when it is gone already.
    pub async fn remove_image(&self, image: v1::ImageSpec) -> Result<(), CriError> {
        let request = v1::RemoveImageRequest { image: Some(image) };
        image_call!(self, "RemoveImage", remove_image, Some(self.request_timeout()), request).await?;
        Ok(())
    }

    /// Use of the file systems that hold images.
    pub async fn image_fs_info(&self) -> Result<v1::ImageFsInfoResponse, CriError> {
        let deadline = Some(self.request_timeout());
        image_call!(self, "ImageFsInfo", image_fs_info, deadline, v1::ImageFsInfoRequest {}).await
    }
}

/// A text in a JSON document.
pub(crate) fn text_field(document: &str, path: &[&str]) -> Option<String> {
    let document: serde_json::Value = serde_json::from_str(document).ok()?;
    let found = path.iter().try_fold(&document, |value, field| value.get(field))?;
    found.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
}
